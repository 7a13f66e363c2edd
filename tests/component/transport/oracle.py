"""What this machine's own ssh makes of a configuration: the truth that ours is compared with."""

from __future__ import annotations

import subprocess
from pathlib import Path

from flagscale_deploy.transport.ssh_settings import Answer, Destination


def ask_ssh(config: Path | str, destination: Destination) -> tuple[Answer | None, str]:
    """Return what `ssh -G` prints for a destination, None where it refuses, and its complaint."""
    words = ["ssh", "-F", str(config), "-G", *destination.words]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    answer: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        answer.setdefault(keyword, []).append(value)
    return None if done.returncode else answer, done.stderr
