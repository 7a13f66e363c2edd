#!/usr/bin/env python3
"""Have the machine's own programs that tests and demo need: installed by apt as root, named exactly otherwise.

Standard library only, and fine with Python 3.8: it has to run on a bare machine in order to say what it lacks.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys

OLDEST_PYTHON = (3, 11)  # vLLM 0.32
LIBRARIES = {"libnuma.so.1": "libnuma1", "libstdc++.so.6": "libstdc++6"}
PROGRAMS = {"curl": "curl", "ps": "procps", "pgrep": "procps"}
LAB_PROGRAMS = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
    "tc": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "fish": "fish",
    "tcsh": "tcsh",
    "zsh": "zsh",
}


def main() -> int:
    if sys.version_info[:2] < OLDEST_PYTHON:
        present, wanted = (".".join(map(str, version)) for version in (sys.version_info[:3], OLDEST_PYTHON))
        say(f"Python {wanted} or later is needed for vLLM 0.32; this is {present} ({sys.executable}).")
        say("Name another one: make PYTHON=/path/to/python3.12 …")
        return 1
    root = os.geteuid() == 0
    packages = missing_packages(LAB_PROGRAMS if root else {})
    if not root:
        say("not root: everything that needs lab hosts (network namespaces) is left out; connection: local is not")
    if not packages:
        return 0
    if root and shutil.which("apt-get"):
        install(packages)
        packages = missing_packages(LAB_PROGRAMS)
    if packages:
        say(f"missing: {' '.join(packages)}. Install as root: apt-get install {' '.join(packages)}")
    return 1 if packages else 0


def missing_packages(more_programs: dict[str, str]) -> list[str]:
    """Debian's names for what isn't there."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    programs = {**PROGRAMS, **more_programs}
    missing = {package for program, package in programs.items() if not shutil.which(program, path=path)}
    missing |= {package for library, package in LIBRARIES.items() if not loads(library)}
    # Debian and Ubuntu ship Python without the module that venv needs.
    if importlib.util.find_spec("ensurepip") is None:
        missing.add(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")
    return sorted(missing)


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def install(packages: list[str]) -> None:
    say(f"installing with apt-get: {' '.join(packages)}")
    if "openssh-server" in packages:
        say(
            "  (openssh-server is for the lab's hosts; where systemd runs, the machine's own SSH service comes with it)"
        )
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        subprocess.run(
            ["apt-get", *command], env=quiet, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True
        )


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
