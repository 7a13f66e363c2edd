"""Whatever is read on a host is bounded: files and commands go through one function each, shared places are few."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.unit.sources import ROOT, Module, read_package

REMOTE = {name: module for name, module in read_package().items() if module.room == "remote"}

READS = {
    "open",
    "read_text",
    "read_bytes",
    "fdopen",
    "loads",
    "load",
    "communicate",
    "check_output",
    "Popen",
    "getoutput",
}
"""What reads a file, a command's output or JSON without a bound; `run` only of `subprocess`."""

OTHERWISE = {
    "system.files": "is the function for files",
    "system.json_files": "is the function for JSON",
    "system.subprocesses": "is the function for commands",
    "deployment.record": "opens the file that it locks",
    "deployment.history": "opens the file that it locks",
    "deployment.lockfile": "opens the file that it locks",
    "deployment.boot_entry": "opens the directory that it locks",
    "deployment.scripts": "opens a script's log to be written, and starts the script with it",
    "programs.stop": "opens the log of after_stop to be written",
    "supervisor.notify": "hands an event on in a file in memory that it has written",
    "system.limits": "tries whether files can be made",
    "engine.vllm_parser": "is sent to vLLM's Python without our modules; it reads two lines of 4 KiB, and our question",
    "orders": "parses an order of the operator, of bounded length",
    "push.place": "opens what a push sends or writes, without following links",
    "push.shape": "opens a directory to change its mode",
    "push.source": "opens the file that is sent, piece by piece",
    "push.store": "opens the files that are received",
    "push.serve": "opens the file that is sent, piece by piece",
}
"""The modules that call one of them all the same, and for what."""


def calls(module: Module) -> Iterator[str]:
    """Yield calls that read without a bound; our own functions of such names (`json_files`, a listener) apart."""
    for node in module.nodes:
        if not isinstance(node, ast.Call):
            continue
        owner, _, name = ast.unparse(node.func).rpartition(".")
        by_library = owner in {"os", "io", "json", "subprocess"} and name in {*READS, "run", "call", "popen"}
        by_object = name in {"read_text", "read_bytes", "communicate"} and owner not in ("", "files")
        if by_library or by_object or (owner, name) == ("", "open"):
            yield f"{owner}.{name}".lstrip(".")


def test_files_commands_and_json_are_read_by_the_functions_that_bound_it() -> None:
    reading = {name.partition("remote.")[2]: sorted(set(calls(module))) for name, module in REMOTE.items()}
    assert {name: reads for name, reads in reading.items() if reads and name not in OTHERWISE} == {}


def test_no_command_is_started_past_the_function_that_bounds_it() -> None:
    starting = [name for name, module in REMOTE.items() if {"subprocess.Popen", "subprocess.run"} & set(calls(module))]
    assert starting == ["remote.deployment.scripts", "remote.system.subprocesses"]


SHARED = re.compile(r"/tmp\b|/dev/shm\b|/var/tmp\b|/run/user\b|\btempfile\b")
PLACES = {
    "deployment.ray_temp": "makes and finds the run's directory, verified, with other names where one is taken",
    "deployment.shared_memory": "removes segments of ours by device, inode and owner",
    "deployment.boot_entry": "asks the user's systemd at /run/user/<uid>, which root made",
    "system.capacity": "asks how much space there is",
    "system.limits": "tries whether files can be made, by a name that nobody foresees",
    "programs.parse_flags": "makes a directory with tempfile.mkdtemp, which nobody foresees",
    "push.place": "names where no push goes",
}
"""The modules that name a place that other users can write in, and for what."""


def shared_places(module: Module) -> list[str]:
    """Return the texts of a module, docstrings apart, and its imports, that name a shared place."""
    documentation = {
        id(node.body[0].value)
        for node in module.nodes
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = [
        node.value
        for node in module.nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]
    return [text for text in [*texts, *module.libraries] if SHARED.search(text) and "\n" not in text and len(text) < 60]


def test_places_that_other_users_can_write_in_are_named_in_these_modules_only() -> None:
    naming = {name.partition("remote.")[2]: shared_places(module) for name, module in REMOTE.items()}
    assert {name: texts for name, texts in naming.items() if texts}.keys() == PLACES.keys()


def test_scripts_name_a_shared_place_in_one_template_which_verifies_it() -> None:
    sources = {path.name: path.read_text() for path in sorted((ROOT / "templates").glob("*.j2"))}
    assert [name for name, source in sources.items() if SHARED.search(source)] == ["_environment.sh.j2"]


def test_every_script_begins_with_umask_077() -> None:
    """The comment at its top apart; `_environment.sh.j2` is what all but two begin with."""
    sources = {path.name: path.read_text() for path in sorted((ROOT / "templates").glob("*.j2"))}
    first = {
        name: next(line for line in source.splitlines() if not line.startswith("#"))
        for name, source in sources.items()
        if source.startswith("#!") or name == "_environment.sh.j2"
    }
    including = '{% include "_environment.sh.j2" %}'
    for alone in ("_environment.sh.j2", "boot.sh.j2", "warm.sh.j2"):
        assert first.pop(alone) == "umask 077"
    assert set(first.values()) == {including}
    assert len(first) == 9
