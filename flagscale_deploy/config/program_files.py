"""A program of the user's own: its files, the library that it imports, and its configuration, for the hosts."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import InputError
from flagscale_deploy.support.folders import files_below
from flagscale_deploy.support.input_files import read_bytes
from flagscale_deploy.support.planted import refuse_planted
from flagscale_deploy.support.value import Tree, Value
from flagscale_deploy.support.yaml import dump

LIBRARY = "flagscale_deploy.serve"
ALIAS = "flagscale.py"
WITH_FOLDER = re.compile(r"^#\s*flagscale-deploy:\s*with-folder\s*$", re.MULTILINE)
"""A program with this comment is sent with the folder that it lies in."""
MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class ProgramFiles:
    """The files that are put into `app/` of a host's state directory.

    `files` are contents by path: `program/…` the user's, `lib/…` the library, `alias/…` the package `flagscale` for
    hosts without one. Bytes that are no UTF-8 stand in them as surrogates (PEP 383). `entrypoint` is a path below
    `program/`.
    """

    entrypoint: str
    files: Mapping[str, str]
    folder: bool

    @property
    def digest(self) -> str:
        """Return a hash of all names and contents."""
        return hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()


def load_program(spec: ServeSpec) -> ProgramFiles | None:
    """Return the files of the program that a specification runs; None where it runs none.

    `entrypoint` is relative to the working directory, as in FlagScale, or else to the configuration's folder. Raises
    InputError where there is no such file, or more than can be sent.
    """
    if not spec.runs_program or spec.entrypoint is None:
        return None
    where = spec.where("experiment", "task", "entrypoint")
    script = _find(spec.entrypoint, spec.source, where)
    text = _read(script, where)
    folder = WITH_FOLDER.search(text) is not None
    files = {script.name: text}
    if folder:
        size = len(text)
        for path in files_below(script.parent, _is_left_out):
            refuse_planted(script.parent, path)
            content = _read(path, where)
            files[path.relative_to(script.parent).as_posix()] = content
            size += len(content) + 256  # a file is not for nothing
            if size > MOST_BYTES:
                problem = f"the folder {script.parent} holds more than {MOST_BYTES >> 20} MiB"
                remedy = "put the program into a folder of its own; models and data do not travel"
                raise InputError.at(where, problem, remedy)
    sent = {f"program/{name}": content for name, content in files.items()}
    return ProgramFiles(script.name, {**sent, **_library()}, folder)


def program_config(spec: ServeSpec) -> str:
    """Return the configuration that a program gets with `--config-path`, in YAML. It may hold secrets.

    The options of `ray.remote`, wherever they were set, stand where FlagScale's programs look for them:
    `serve.deploy.models`, or `experiment.deploy.models` where `serve` is a list.
    """
    document = _plain_tree(spec.document)
    root = "serve" if isinstance(document.get("serve"), dict) else "experiment"
    if spec.remote_options:
        place = document
        for key in (root, "deploy", "models"):
            below = place.get(key)
            inner: Tree = dict(below) if isinstance(below, dict) else {}
            place[key] = inner
            place = inner
        for name, options in spec.remote_options.items():
            place[name] = _plain_tree(options)
    return dump(document)


def _find(entrypoint: str, source: str, where: str) -> Path:
    places = {Path(entrypoint): Path(), Path(source).parent / entrypoint: Path(source).parent}
    for path, folder in places.items():
        if os.path.isfile(path):  # False, where Path.is_file would raise, for a name that no file can have
            refuse_planted(folder, path)
            return path
    tried = " and ".join(map(str, places))
    remedy = "a relative path starts where you are, or at the configuration's folder"
    raise InputError.at(where, f"there is no file {tried}", remedy)


def _is_left_out(path: Path) -> bool:
    """Return whether something in a program's folder does not travel: hidden files, caches and links."""
    return path.name.startswith(".") or path.name == "__pycache__" or os.path.islink(path)


def _read(path: Path, where: str) -> str:
    try:
        return read_bytes(path, MOST_BYTES, pipes=False).decode("utf-8", "surrogateescape")
    except InputError as error:
        remedy = "models and data do not travel: put them on the hosts"
        raise InputError.at(where, f"{path} {error.faults[0].problem}", remedy) from error


def _library() -> dict[str, str]:
    sources = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in importlib.resources.files(LIBRARY).iterdir()
        if entry.name.endswith(".py")
    }
    alias = sources.pop(ALIAS)
    package = LIBRARY.replace(".", "/")
    return {
        "lib/flagscale_deploy/__init__.py": "",
        **{f"lib/{package}/{name}": text for name, text in sorted(sources.items())},
        "alias/flagscale/__init__.py": alias,
    }


def _plain_tree(tree: Mapping[str, Value]) -> Tree:
    return {str(key): _plain(value) for key, value in tree.items()}


def _plain(value: Value) -> Value:
    """Return a value of types that YAML has words for: a `WrittenFloat` is a number."""
    if isinstance(value, Mapping):
        return _plain_tree(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, float) else value
