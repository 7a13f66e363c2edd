"""Notes on each program, script and command that is run on a host, for `-vv`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from flagscale_deploy.secrets import HIDDEN, is_secret_name
from flagscale_deploy.transport.ssh_notes import NOTES

LONGEST = 4000
"""Characters of a program's arguments that are shown."""


def note_command(host: str, command: str) -> None:
    """Note a command as it goes to the host's login shell."""
    NOTES.debug("%s: runs %s", host, command)


def note_program(host: str, name: str, args: object) -> None:
    """Note a program of `remote/programs/` with its arguments, and the text of the script that it starts.

    Files in `secrets/` are named only, and so are arguments with the name of a secret.
    """
    if NOTES.isEnabledFor(logging.DEBUG) and isinstance(args, Mapping):
        NOTES.debug("%s", "\n".join(_lines(host, name, args)))


def _lines(host: str, name: str, args: Mapping[str, Any]) -> Iterator[str]:
    files: Mapping[str, tuple[str, str]] = args.get("files") or {}
    text = json.dumps(_shown({key: value for key, value in args.items() if key != "files"}), ensure_ascii=False)
    yield f"{host}: runs {name} {text[:LONGEST]}{' …' if len(text) > LONGEST else ''}"
    for path, (content, mode) in files.items():
        yield f"    sends {path} ({len(content)} characters, mode {mode})"
        if path == f"scripts/{args.get('script')}":
            yield from (f"    | {line}" for line in content.splitlines())


def _shown(value: object) -> object:
    """Return arguments without texts whose names are those of secrets."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if isinstance(inner, str) and is_secret_name(str(key)) else _shown(inner)
            for key, inner in value.items()
        }
    return [_shown(inner) for inner in value] if isinstance(value, (list, tuple)) else value
