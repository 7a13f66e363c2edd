"""Bundle a program of `remote/programs/` with all that it imports, as bytes that a host's own Python runs."""

from __future__ import annotations

import functools
import json
import re
import threading
import zlib
from pathlib import Path, PurePosixPath

from flagscale_deploy import remote

PACKAGE = remote.__name__


SOURCES = Path(remote.__file__).parent


_IMPORT = re.compile(rf"^ *from {re.escape(PACKAGE)}((?:\.\w+)*) import (\([^)]*\)|.*)$", re.MULTILINE)
"""How modules of `remote/` import each other. (`ast` takes 100 ms for those of a probe.)"""


_TYPES = re.compile(r"^if TYPE_CHECKING:\n(?:(?: .*)?\n)+", re.MULTILINE)
"""Imports that only a type checker carries out: a host does without them."""


_DOCSTRING = re.compile(r'^( *)"""(?=\S)(?:[^"\\]|\\.|"(?!""))*"""$', re.MULTILINE)
"""What people read, a third of all that would be sent."""


EVERYWHERE = ("wire", "system.files")
"""What every program comes with."""


_packing = threading.Lock()
"""Of all the threads that want the same library at once, one puts it together."""


# Each module is compiled when something of it is first asked for: half of what a program brings along it seldom needs.
_LOADER = """
import json, signal, sys, threading, types, zlib
texts, (name, args, seconds) = zlib.decompress(PACKED).decode().split("\\0"), json.loads(TOLD)
if seconds:
    signal.alarm(seconds)
loading, ahead = threading.RLock(), {"__spec__", "__path__", "__name__", "__class__", "__dict__"}
class Module(types.ModuleType):
    def __getattribute__(self, key):
        if key not in ahead:
            with loading:
                source = sources.pop(types.ModuleType.__getattribute__(self, "__name__"), None)
                if source is not None:
                    exec(compile(source, self.__name__, "exec"), self.__dict__)
        return types.ModuleType.__getattribute__(self, key)
def add(full, module):
    sys.modules[full] = module
    package, _, base = full.rpartition(".")
    if package:
        if package not in sys.modules:
            add(package, types.ModuleType(package))
            sys.modules[package].__path__ = []
        setattr(sys.modules[package], base, module)
sources = {}
for module, source in zip(texts[::2], texts[1::2]):
    full = "flagscale_deploy.remote." + module
    sources[full] = source
    add(full, Module(full))
from flagscale_deploy.remote.system.files import keep_private, leave_working_directory
from flagscale_deploy.remote.wire import send
keep_private()
leave_working_directory()
try:
    sys.modules["flagscale_deploy.remote.programs." + name].main(args)
except BrokenPipeError:
    pass
except Exception as error:
    import traceback
    send({"error": "%s: %s" % (type(error).__name__, error), "traceback": traceback.format_exc()})
    sys.exit(1)
"""


_RUN_ALONE = f"""\
import importlib
import os
import sys

os.umask(0o077)
importlib.import_module("{PACKAGE}.supervisor." + sys.argv[1]).command(sys.argv[2:])
"""


@functools.cache
def _source(module: str) -> str:
    return _file(module).read_text(encoding="utf-8")


def _file(module: str) -> Path:
    return SOURCES / f"{module.replace('.', '/')}.py"


@functools.cache
def closure(module: str) -> tuple[str, ...]:
    """Return a module of `remote/` (`system.proc`) and those it imports, each after what it needs."""
    order: list[str] = []
    for submodule, listed in _IMPORT.findall(_TYPES.sub("", _source(module))):
        parent = submodule.lstrip(".")
        names = [name.split()[0] for name in listed.strip("()").split(",") if name.strip()]
        imported = (
            [parent] if parent and _file(parent).is_file() else [f"{parent}.{name}".lstrip(".") for name in names]
        )
        for needed in imported:
            order += [module for module in closure(needed) if module not in order]
    return (*order, module)


def library(*modules: str) -> dict[str, str]:
    """Return modules of `remote/supervisor/`, and all that they need, as files of a folder that a host's Python runs.

    `python3 FOLDER MODULE WORD…` calls the module's `command` with the words.
    """
    package = PurePosixPath(PACKAGE.replace(".", "/"))
    needed = dict.fromkeys(name for module in modules for name in closure(f"supervisor.{module}"))
    files = {package / f"{name.replace('.', '/')}.py": _source(name) for name in needed}
    folders = dict.fromkeys(folder for file in files for folder in reversed(file.parents[:-1]))
    return {
        "__main__.py": _RUN_ALONE,
        **{f"{folder}/__init__.py": "" for folder in folders},
        **{str(file): source for file, source in files.items()},
    }


def bundle(program: str, args: object, seconds: float | None = None) -> bytes:
    """Return the bytes to send for a program of `remote/programs/`.

    A length line, a loader in Python, and what the loader reads behind itself: the library, and the arguments.

    It ends itself `seconds` after its start, if given.
    """
    with _packing:
        packed = _packed(program)
    arguments = json.dumps([program, args, int(seconds) + 1 if seconds else None]).encode()
    loader = f"PACKED, TOLD = s.read({len(packed)}), s.read({len(arguments)})\n{_LOADER}".encode()
    return b"%d\n%b%b%b" % (len(loader), loader, packed, arguments)


@functools.cache
def _packed(program: str) -> bytes:
    """Return a program with all it needs, in order, compressed to a third: that is seconds on a slow link."""
    order = dict.fromkeys((*EVERYWHERE, *closure(f"programs.{program}")))
    return zlib.compress("\0".join(text for module in order for text in (module, bare(_source(module)))).encode())


def bare(source: str) -> str:
    """Return a module whose docstrings are empty. Every line keeps its number."""
    return _DOCSTRING.sub(lambda text: f'{text[1]}""' + "\n" * text[0].count("\n"), source)
