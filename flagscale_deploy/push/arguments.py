"""Parse SRC and DEST of `push`."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flagscale_deploy.errors import InputError
from flagscale_deploy.remote.push.place import refused
from flagscale_deploy.support.planted import refuse_planted
from flagscale_deploy.support.suggest import suggest


@dataclass(frozen=True)
class PushArguments:
    """Where to push from and to: `path` on `host` ("" is this machine), and `dest` on every host."""

    host: str
    path: str
    dest: str

    def __str__(self) -> str:
        return f"{self.host}:{self.path}" if self.host else self.path

    def is_source(self, host: str) -> bool:
        """Return whether DEST on a host is the source itself."""
        return self.host == host and posixpath.normpath(self.path) == posixpath.normpath(self.dest)


@dataclass(frozen=True)
class PushOptions:
    """How to push.

    `check` only compares, `checksum` reads all files instead of using cached hashes, and `copy_links` replaces links
    by what they lead to.
    """

    check: bool = False
    checksum: bool = False
    copy_links: bool = False


def parse_arguments(source: str, dest: str, hosts: Sequence[str]) -> PushArguments:
    """Parse SRC, a path here or HOST:PATH, and DEST, a path on every host.

    SRC is a path here if it exists, or has a slash before its first colon. Raises InputError for a host that is not in
    the inventory, and for a DEST that must not be written to.
    """
    host = next((name for name in sorted(hosts, key=len, reverse=True) if source.startswith(f"{name}:")), "")
    name, colon, path = source.partition(":")
    if host:
        refuse_planted(Path(), Path(source), named=False)  # a path of that name would count
    if host and not os.path.exists(source):
        path = source[len(host) + 1 :]
    elif colon and "/" not in name and not os.path.exists(source):
        remedy = suggest(name, hosts, "`hosts` lists them; write ./ before a path with a colon")
        raise InputError.at("SRC", f"there is no host {name!r} in the inventory", remedy)
    else:
        host, path = "", source
    if not path:
        raise InputError.at("SRC", f"{source!r} names no path", "as in gpu01:/models/qwen")
    return PushArguments(host, path, _checked(dest, source))


def _checked(dest: str, source: str) -> str:
    """Return DEST if it may be written to. Raises InputError."""
    if "\0" in dest or not dest.startswith(("/", "~/")):
        remedy = "use an absolute path, or one from ~/" if dest not in ("", "~") else "as in /models/qwen"
        raise InputError.at("DEST", f"{dest!r} is not a path that is the same on every host", remedy)
    normal = posixpath.normpath(dest)
    problem = refused("/" + normal.lstrip("/") if normal.startswith("/") else normal)
    if problem or normal == "~":
        raise InputError.at("DEST", problem or "~ is not a directory for one model", f"as in /models/{_name(source)}")
    return dest


def _name(path: str) -> str:
    return posixpath.basename(path.rstrip("/")) or "qwen"


def dest_of_file(dest: str, name: str) -> str:
    """Return the path of a single file: in DEST if that ends in a slash, else DEST itself."""
    return posixpath.join(dest, name) if dest.endswith("/") else dest
