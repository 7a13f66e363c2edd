"""A stand-in for crontab(1) on lab hosts: it keeps what it is given in a file, and nothing ever runs it."""

from __future__ import annotations

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
