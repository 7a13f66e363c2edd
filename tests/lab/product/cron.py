"""A stand-in for crontab(1) on lab hosts: it keeps what it is given in a file, and `boot` runs what cron would."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.lab import Host

COMMAND = """#!/bin/sh
# Stand-in for crontab(1).
kept=$HOME/.crontab-stand-in
case $1 in
  -l) if [ -f "$kept" ]; then cat "$kept"; else echo "no crontab for $(id -un)" >&2; exit 1; fi ;;
  -r) rm "$kept" ;;
  -) cat >"$kept" ;;
esac
"""


def install(host: Host) -> None:
    command = host.directory / "sbin/crontab"
    command.write_text(COMMAND)
    command.chmod(0o755)


def remove(host: Host) -> None:
    (host.directory / "sbin/crontab").unlink()
    kept(host).unlink(missing_ok=True)


def kept(host: Host) -> Path:
    """Return the user's crontab."""
    return host.directory / "home/.crontab-stand-in"


def entries(host: Host) -> list[str]:
    """Return the lines that are of a deployment's."""
    lines = kept(host).read_text().splitlines() if kept(host).exists() else []
    return [line for line in lines if line.startswith("@reboot /bin/bash ")]


def boot(host: Host) -> None:
    """Start what cron would when the host comes up, with the little that cron gives, and do not wait for it."""
    for line in entries(host):
        command = line.removeprefix("@reboot ").replace("\\%", "%")
        given = f"env -i HOME=/root PATH=/usr/bin:/bin SHELL=/bin/sh sh -c {shlex.quote(command)}"
        host.run(f"cd; setsid {given} </dev/null >/dev/null 2>&1 &")
