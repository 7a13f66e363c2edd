"""SRC and DEST as a user writes them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from flagscale_deploy.errors import InputError
from flagscale_deploy.remote.push.place import refused
from flagscale_deploy.support.suggest import suggest


@dataclass(frozen=True)
class Words:
    """From where to where: `host` is "" for this machine; `path` is there, `dest` on every host."""

    host: str
    path: str
    dest: str

    def __str__(self) -> str:
        return f"{self.host}:{self.path}" if self.host else self.path

    def is_where_it_is(self, host: str) -> bool:
        """Whether a host has the source itself at DEST."""
        return self.host == host and posixpath.normpath(self.path) == posixpath.normpath(self.dest)


def parse_words(source: str, dest: str, hosts: Sequence[str]) -> Words:
    """Understand SRC, a path here or HOST:PATH, and DEST, a path on every host.

    What is there as a path counts as one, whatever it looks like; so does what has a slash before its first colon.
    Raises InputError for a host that is not in the inventory, and for a DEST that must not be written to.
    """
    host = next((name for name in sorted(hosts, key=len, reverse=True) if source.startswith(f"{name}:")), "")
    name, colon, path = source.partition(":")
    if host and not os.path.exists(source):
        path = source[len(host) + 1 :]
    elif colon and "/" not in name and not os.path.exists(source):
        remedy = suggest(name, hosts, "`hosts` lists them; write ./ before a path with a colon")
        raise InputError.at("SRC", f"there is no host {name!r} in the inventory", remedy)
    else:
        host, path = "", source
    if not path:
        raise InputError.at("SRC", f"{source!r} names no path", "as in gpu01:/models/qwen")
    return Words(host, path, _checked(dest, source))


def _checked(dest: str, source: str) -> str:
    """DEST, with the source's name where it ends in a slash and the source is a file; see `finished_dest`."""
    if "\0" in dest or not dest.startswith(("/", "~/")):
        where = f"write {dest!r} from the root on, or from ~/" if dest not in ("", "~") else "as in /models/qwen"
        raise InputError.at("DEST", f"{dest!r} is not a path that is the same on every host", where)
    normal = posixpath.normpath(dest)
    why = refused("/" + normal.lstrip("/") if normal.startswith("/") else normal)
    if why or normal == "~":
        raise InputError.at("DEST", why or "~ is not a directory for one model", f"as in /models/{_name(source)}")
    return dest


def _name(path: str) -> str:
    return posixpath.basename(path.rstrip("/")) or "qwen"


def dest_of_file(dest: str, name: str) -> str:
    """Where a single file goes: into DEST where that ends in a slash, else DEST is its path."""
    return posixpath.join(dest, name) if dest.endswith("/") else dest
