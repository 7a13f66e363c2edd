"""The house: imports go downward only, and what is confined to a room stays there. Read from the sources themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flagscale_deploy"
LONGEST_MODULE = 300

FLOORS = (
    ("errors", "shell", "secrets", "deadline", "events", "diagnose", "engine_log", "remote", "serve"),
    ("inventory", "observation", "render"),
    ("config",),
    ("program", "runner"),
    ("plan",),
    ("transport", "folder"),
    ("execute", "stop", "logs", "observe", "records", "status"),
    ("ready",),
    ("deploy", "request"),
    ("api",),
    ("smoke",),
    ("junit", "console"),
    ("views",),
    ("cli",),
    ("__main__",),
)
"""Lowest first. A module belongs to the entry that names it or a package above it. Entries of one floor don't import
from each other, but for the ground, which is level."""

GROUND = 0


def modules() -> list[str]:
    """Every module below flagscale_deploy, as `plan.planner`; packages by their own name."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in names if name]


def file_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(file_of(module).read_text(encoding="utf-8"))


def imported(module: str) -> Iterator[str]:
    """Full names of everything that a module imports, wherever it does it."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide where one stands"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    known = set(modules())
    found = set()
    for name in imported(module):
        if not name.startswith("flagscale_deploy."):
            continue
        parts = name.split(".")[1:]
        while parts and ".".join(parts) not in known:
            parts.pop()
        if parts:
            found.add(".".join(parts))
    return found


def entry_of(module: str) -> tuple[int, str]:
    """The floor of a module, and the entry that names it there."""
    found = [
        (len(entry), floor, entry)
        for floor, entries in enumerate(FLOORS)
        for entry in entries
        if module == entry or module.startswith(entry + ".")
    ]
    assert found, f"{module} stands on no floor of this test: give it one"
    _, floor, entry = max(found)
    return floor, entry


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downward_only(module: str) -> None:
    floor, entry = entry_of(module)
    for other in ours(module):
        below, theirs = entry_of(other)
        assert below < floor or theirs == entry or below == floor == GROUND, f"{module} imports {other} from above"


def test_there_is_no_circle() -> None:
    done: set[str] = set()
    waiting = {module: ours(module) - {module} for module in MODULES}
    while waiting:
        free = [module for module, needs in waiting.items() if needs <= done]
        assert free, f"a circle among {sorted(waiting)}"
        for module in free:
            done.add(module)
            del waiting[module]


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("click", ("cli",)),
        ("fabric", ("transport.ssh",)),
        ("invoke", ("transport.ssh",)),
        ("paramiko", ("transport.ssh", "transport.hostkeys")),
        ("rich", ("console", "views")),
        ("jinja2", ("render", "inventory.references")),
        ("omegaconf", ("config",)),
        ("pydantic", ("config", "inventory.keys")),
        ("subprocess", ("transport.local", "remote")),
        ("yaml", ("config", "inventory", "diagnose", "program", "serve")),
        ("asyncio", ()),
        ("ray", ("serve",)),
        ("vllm", ()),
    ],
)
def test_a_library_stays_in_its_rooms(library: str, rooms: tuple[str, ...]) -> None:
    strangers = [
        module
        for module in MODULES
        if any(name.split(".")[0] == library for name in imported(module))
        and not any(module == room or module.startswith(room + ".") for room in rooms)
    ]
    assert strangers == []


PURE = [module for module in MODULES if module.split(".")[0] in ("plan", "config", "inventory", "observation", "shell")]
WORLD = {"time", "socket", "random", "secrets", "uuid", "getpass", "subprocess", "threading", "platform"}


@pytest.mark.parametrize("module", PURE)
def test_planning_asks_neither_clock_nor_chance_nor_network(module: str) -> None:
    assert not {name.split(".")[0] for name in imported(module)} & WORLD
    asked = [node.attr for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute)]
    assert not {"now", "today", "utcnow"} & set(asked)


@pytest.mark.parametrize("module", [each for each in PURE if each.split(".")[0] in ("plan", "observation", "shell")])
def test_planning_reads_no_file(module: str) -> None:
    names = {name for name in imported(module) if not name.startswith("pathlib.Pure")}
    assert not {name.split(".")[0] for name in names} & {"os", "pathlib", "io", "shutil", "tempfile", "importlib"}
    calls = [node.func for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
    assert not {each.id for each in calls if isinstance(each, ast.Name)} & {"open", "input", "print", "exec", "eval"}


@pytest.mark.parametrize("module", PURE)
def test_the_environment_is_an_argument(module: str) -> None:
    assert not {"os.environ", "os.getenv"} & set(imported(module))
    nodes = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute)]
    asked = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "os"}
    assert not asked & {"environ", "getenv", "environb"}


REMOTE = [module for module in MODULES if module.split(".")[0] in ("remote", "serve")]
STANDARD_LIBRARY_38 = frozenset(
    """
    __future__ argparse array ast base64 bisect collections contextlib ctypes datetime errno fcntl functools glob
    hashlib http io ipaddress itertools json logging math mmap os pathlib platform pwd re resource select shlex shutil signal socket ssl
    stat string struct subprocess sys tarfile tempfile textwrap threading time traceback types typing urllib uuid
    concurrent grp importlib selectors
    """.split()  # noqa: SIM905 (one name a line would fill a page)
)


@pytest.mark.parametrize("module", REMOTE)
def test_what_runs_on_hosts_needs_nothing_but_python_3_8(module: str) -> None:
    ast.parse(file_of(module).read_text(encoding="utf-8"), feature_version=(3, 8))
    for name in imported(module):
        first, room = name.split(".")[0], module.split(".")[0]
        beside = first == "flagscale_deploy" and name.split(".")[1] == room
        brought = room == "serve" and first in ("ray", "yaml", "numpy")  # it says so: a host that serves has them
        assert first in STANDARD_LIBRARY_38 or beside or brought, f"{module} imports {name}"


@pytest.mark.parametrize("module", REMOTE)
def test_what_runs_on_hosts_calls_nothing_younger_than_python_3_8(module: str) -> None:
    """What is easily written and is not there, syntax apart: methods, functions and generics of 3.9 and later."""
    young = {"removeprefix", "removesuffix", "hardlink_to", "bit_count", "pairwise", "batched", "cache"}
    used = {node.attr for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute)}
    assert not used & young
    evaluated = [node for node in ast.walk(_without_annotations(module)) if isinstance(node, ast.Subscript)]
    builtin = {"list", "dict", "tuple", "set", "frozenset", "type"}
    assert not [node for node in evaluated if isinstance(node.value, ast.Name) and node.value.id in builtin]


def _without_annotations(module: str) -> ast.Module:
    """The tree less its annotations, which `from __future__ import annotations` leaves as text."""
    tree = ast.parse(file_of(module).read_text(encoding="utf-8"))
    lazy = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    for node in ast.walk(tree) if lazy else ():
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
    return tree


@pytest.mark.parametrize("module", [*MODULES, ""])
def test_a_module_is_a_room_and_no_hall(module: str) -> None:
    assert len(file_of(module).read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("module", [*MODULES, ""])
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(tree_of(module)), module


def test_no_room_is_a_lumber_room() -> None:
    banned = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "base_utils"}
    assert [module for module in MODULES if banned & set(module.split("."))] == []


def test_only_the_console_writes_to_the_terminal() -> None:
    """`remote/` answers on standard output: that is its wire. What runs on hosts has no terminal."""
    writers = [
        module
        for module in MODULES
        if module.split(".")[0] not in ("remote", "serve") and module != "console"
        for node in ast.walk(tree_of(module))
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
        or (isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr") and isinstance(node.value, ast.Name)
            and node.value.id == "sys")
    ]  # fmt: skip
    assert set(writers) <= {"cli.options"}  # which closes standard output when nobody reads it any more


def test_our_own_code_is_never_mocked() -> None:
    mocked = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if any(name.startswith("unittest.mock") for name in _imports_of(path))
    ]
    assert mocked == []


def _imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{node.module}.{node.names[0].name}"
