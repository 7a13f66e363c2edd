"""A program of the user's own, as it goes to the hosts: its files, the library it imports, its configuration."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import InputError
from flagscale_deploy.support.yaml import dump

LIBRARY = "flagscale_deploy.serve"
ALIAS = "flagscale.py"
WITH_FOLDER = re.compile(r"^#\s*flagscale-deploy:\s*with-folder\s*$", re.MULTILINE)
"""A program with this comment wants the folder it lies in beside it."""
MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class ProgramFiles:
    """What is put into `app/` of a host's state directory.

    `files` are contents by path: `program/…` the user's, `lib/…` the library, `alias/…` the package `flagscale` for
    hosts without one. Bytes that are no UTF-8 stand in them as surrogates (PEP 383). `entrypoint` is a path below
    `program/`.
    """

    entrypoint: str
    files: Mapping[str, str]
    folder: bool

    @property
    def digest(self) -> str:
        """Changes with any file's name or content."""
        return hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()


def load_program(spec: ServeSpec) -> ProgramFiles | None:
    """The files of the program that a specification runs; None where it runs none.

    `entrypoint` is relative to the working directory, as in FlagScale, or else to the configuration's folder. Raises
    InputError where there is no such file, or more than can be sent.
    """
    if not spec.runs_program or spec.entrypoint is None:
        return None
    where = f"{spec.source}: experiment.task.entrypoint"
    script = _find(spec.entrypoint, spec.source, where)
    text = _read(script, where)
    folder = WITH_FOLDER.search(text) is not None
    files = {script.name: text}
    if folder:
        for path in _beside(script.parent):
            files[path.relative_to(script.parent).as_posix()] = _read(path, where)
            _refuse_too_much(files, script.parent, where)
    sent = {f"program/{name}": content for name, content in files.items()}
    return ProgramFiles(script.name, {**sent, **_library()}, folder)


def program_config(spec: ServeSpec) -> str:
    """The configuration that a program gets with `--config-path`, in YAML. It may hold secrets.

    The options of `ray.remote`, wherever they were set, stand where FlagScale's programs look for them:
    `serve.deploy.models`, or `experiment.deploy.models` where `serve` is a list.
    """
    document = _plain(spec.document)
    root = "serve" if isinstance(document.get("serve"), dict) else "experiment"
    if spec.remote_options:
        place = document
        for key in (root, "deploy", "models"):
            below = place.get(key)
            place[key] = dict(below) if isinstance(below, dict) else {}
            place = place[key]
        for name, options in spec.remote_options.items():
            place[name] = _plain(options)
    return dump(document)


def _find(entrypoint: str, source: str, where: str) -> Path:
    places = [Path(entrypoint), Path(source).parent / entrypoint]
    for path in places:
        if path.is_file():
            return path
    tried = " and ".join(dict.fromkeys(str(path) for path in places))
    raise InputError.at(
        where, f"there is no file {tried}", "a relative path starts where you are, or at the configuration's folder"
    )


def _beside(folder: Path) -> Iterator[Path]:
    """The files of a folder, at any depth, in order; hidden ones, caches and links stay here."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__" or path.is_symlink():
            continue
        if path.is_dir():
            yield from _beside(path)
        elif path.is_file():
            yield path


def _refuse_too_much(files: Mapping[str, str], folder: Path, where: str) -> None:
    if sum(map(len, files.values())) > MOST_BYTES:
        problem = f"the folder {folder} holds more than {MOST_BYTES >> 20} MiB"
        raise InputError.at(where, problem, "put the program into a folder of its own; models and data do not travel")


def _read(path: Path, where: str) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            problem = f"{path} is larger than {MOST_BYTES >> 20} MiB"
            raise InputError.at(where, problem, "models and data do not travel: put them on the hosts")
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise InputError.at(where, f"{path} cannot be read: {error.strerror}") from error


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


def _plain(value: Any) -> Any:
    """Types that YAML has words for: a number that remembers how it was written is a number."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    kinds = (bool, int, float, str)
    return next((kind(value) for kind in kinds if isinstance(value, kind)), value)
