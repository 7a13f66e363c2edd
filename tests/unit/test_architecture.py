"""The house: imports go downward only, and what is confined to a room stays there. Read from the sources themselves."""

from __future__ import annotations

import ast

import pytest

from tests.unit.sources import ROOT, Module, imported, read_package

LONGEST_MODULE = 300

FLOORS = (
    (
        "errors",
        "private",
        "shell",
        "secrets",
        "deadline",
        "events",
        "clocks",
        "diagnosis",
        "engine_log",
        "remote",
        "serve",
    ),
    ("inventory", "observation", "render", "server_state"),
    ("config",),
    ("program", "runner"),
    ("plan",),
    ("checks",),
    ("transport", "folder"),
    ("lock",),
    (
        "execute",
        "reservation",
        "stop",
        "logs",
        "observe",
        "records",
        "status",
        "links",
        "engine_arguments",
        "stall",
        "push",
    ),
    ("vigil",),
    ("ready",),
    ("deploy", "request"),
    ("api", "junit"),
    ("smoke", "console"),
    ("views",),
    ("cli",),
    ("__main__",),
)
"""Lowest first. Rooms of one floor don't import from each other, but for the ground, which is level."""

GROUND = 0

MODULES = read_package()
PURE_ROOMS = ("plan", "checks", "config", "inventory", "observation", "shell")
PURE = [module for module in MODULES.values() if module.room in PURE_ROOMS]
ON_HOSTS = [module for module in MODULES.values() if module.room in ("remote", "serve")]


def floor_of(module: Module) -> int:
    found = [number for number, rooms in enumerate(FLOORS) if module.room in rooms]
    assert found, f"{module.name} stands on no floor of this test: give it one"
    return found[0]


def ours(module: Module) -> set[str]:
    """The modules of this package that a module imports."""
    found = set()
    for name in module.imports:
        package, _, rest = name.partition(".")
        while package == "flagscale_deploy" and rest and rest not in MODULES:
            rest = rest.rpartition(".")[0]
        if package == "flagscale_deploy" and rest:
            found.add(rest)
    return found


def test_imports_go_downward_only() -> None:
    upward = [
        f"{module.name} imports {other}"
        for module in MODULES.values()
        if module.name
        for other in ours(module)
        if not (floor_of(MODULES[other]) < floor_of(module) or MODULES[other].room == module.room
                or floor_of(MODULES[other]) == floor_of(module) == GROUND)
    ]  # fmt: skip
    assert upward == []


def test_there_is_no_circle() -> None:
    done: set[str] = set()
    waiting = {name: ours(module) - {name} for name, module in MODULES.items()}
    while waiting:
        free = [name for name, needs in waiting.items() if needs <= done]
        assert free, f"a circle among {sorted(waiting)}"
        done.update(free)
        waiting = {name: needs for name, needs in waiting.items() if name not in done}


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("click", ("cli",)),
        ("fabric", ("transport.ssh",)),
        ("invoke", ("transport.ssh",)),
        ("paramiko", ("transport.ssh", "transport.hostkeys", "transport.pulse")),
        ("rich", ("console", "views")),
        ("jinja2", ("render", "inventory.references")),
        ("omegaconf", ("config",)),
        ("pydantic", ("config", "inventory.keys")),
        ("subprocess", ("transport.local", "remote")),
        ("yaml", ("config", "inventory", "diagnosis", "program", "serve")),
        ("asyncio", ()),
        ("ray", ("serve",)),
        ("vllm", ()),
    ],
)
def test_a_library_stays_in_its_rooms(library: str, rooms: tuple[str, ...]) -> None:
    users = [module.name for module in MODULES.values() if library in module.libraries]
    assert [name for name in users if not any(name == room or name.startswith(f"{room}.") for room in rooms)] == []


WORLD = {"time", "socket", "random", "secrets", "uuid", "getpass", "subprocess", "threading", "platform"}


def test_planning_asks_neither_clock_nor_chance_nor_network() -> None:
    assert {module.name: module.libraries & WORLD for module in PURE if module.libraries & WORLD} == {}
    assert [module.name for module in PURE if module.attributes & {"now", "today", "utcnow"}] == []


def test_planning_reads_no_file() -> None:
    files = {"os", "pathlib", "io", "shutil", "tempfile", "importlib"}
    for module in PURE:
        if module.room in ("plan", "checks", "observation", "shell"):
            names = {name.split(".")[0] for name in module.imports if not name.startswith("pathlib.Pure")}
            assert not names & files, module.name
            assert not module.called & {"open", "input", "print", "exec", "eval"}, module.name


def test_the_environment_is_an_argument() -> None:
    """In two modules the operator's own environment is what an argument is if nobody gives it."""
    asking = [
        module.name
        for module in PURE
        if module.attributes_of("os") & {"environ", "environb", "getenv"}
        or module.imports & {"os.environ", "os.environb", "os.getenv"}
    ]
    assert set(asking) <= {"config.load", "config.interpolation"}


STANDARD_LIBRARY_38 = frozenset(
    """
    __future__ argparse array ast base64 bisect collections concurrent contextlib ctypes datetime errno fcntl functools
    glob grp hashlib hmac http importlib io ipaddress itertools json logging math mmap os pathlib platform pwd queue re
    resource select selectors shlex shutil signal site socket ssl stat string struct subprocess sys tarfile tempfile
    textwrap threading time traceback types typing urllib uuid zlib
    """.split()  # noqa: SIM905 (one name a line would fill a page)
)
BROUGHT = {"remote": set[str](), "serve": {"ray", "yaml"}}
"""What hosts have beside Python itself where a room says so."""


def test_what_runs_on_hosts_needs_nothing_but_python_3_8() -> None:
    for module in ON_HOSTS:
        ast.parse(module.text, feature_version=(3, 8))
        beside = {name for name in module.imports if name.startswith(f"flagscale_deploy.{module.room}")}
        if module.room == "serve":
            beside |= module.imports & {"flagscale_deploy.serve"}
        foreign = {name.split(".")[0] for name in module.imports - beside}
        assert foreign <= STANDARD_LIBRARY_38 | BROUGHT[module.room], module.name


def test_what_runs_on_hosts_calls_nothing_younger_than_python_3_8() -> None:
    """What is easily written and is not there, syntax apart: methods, functions and generics of 3.9 and later."""
    young = {"removeprefix", "removesuffix", "hardlink_to", "bit_count", "pairwise", "batched"}
    assert {module.name: module.attributes & young for module in ON_HOSTS if module.attributes & young} == {}
    assert {module.name: found for module in ON_HOSTS if (found := sorted(_generics(module)))} == {}


def _generics(module: Module) -> set[str]:
    """Builtins that are subscripted (`list[int]`) where Python evaluates it."""
    tree = ast.parse(module.text)
    lazy = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    for node in ast.walk(tree) if lazy else ():  # annotations stay text then
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
    subscripted = [node.value for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    names = {each.id for each in subscripted if isinstance(each, ast.Name)}
    return names & {"list", "dict", "tuple", "set", "frozenset", "type"}


def test_a_module_is_a_room_and_no_hall() -> None:
    lengths = {module.name: len(module.text.splitlines()) for module in MODULES.values()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_every_module_says_what_it_is_for() -> None:
    assert [module.name for module in MODULES.values() if not ast.get_docstring(module.tree)] == []


def test_no_room_is_a_lumber_room() -> None:
    banned = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    assert [name for name in MODULES if banned & set(name.split("."))] == []


def test_only_the_console_writes_to_the_terminal() -> None:
    """`remote/` answers on standard output: that is its wire. What runs on hosts has no terminal."""
    writers = [
        module.name
        for module in MODULES.values()
        if module not in ON_HOSTS and ("print" in module.called or module.attributes_of("sys") & {"stdout", "stderr"})
    ]
    assert set(writers) <= {"console", "cli.options"}  # which closes it when nobody reads it any more


def test_our_own_code_is_never_mocked() -> None:
    files = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))}
    mocking = {path.name: ast.parse(text) for path, text in files.items() if "mock" in text}
    assert [
        name
        for name, tree in mocking.items()
        if any(each.startswith("unittest.mock") for each in imported(list(ast.walk(tree))))
    ] == []
