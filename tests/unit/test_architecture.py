"""The house: imports go downward only, and what is confined to a room stays there. Read from the sources themselves."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from tests.only_linux import ONLY_LINUX
from tests.unit.sources import ROOT, Module, imported, read_package

LONGEST_MODULE = 300
UNTYPED_MAPPINGS = 1.0
"""How often `dict[str, Any]` and the like may stand in 1,000 lines."""

FLOORS = (
    ("gate", "remote", "remote.messages", "serve", "text"),
    ("errors", "remote.network_test", "remote.system", "secrets"),
    ("events", "facts", "remote.deployment", "remote.push", "support"),
    ("config.schema", "diagnosis", "inventory", "remote.engine", "remote.logs", "rendering"),
    ("config.dialects", "remote.programs", "remote.supervisor", "transport"),
    ("config", "logs"),
    ("plan",),
    ("checks", "push", "recipes"),
    ("deploy",),
    ("api",),
    ("output",),
    ("cli",),
    ("__main__",),
)
"""Folders (and modules of the root), lowest floor first: each imports from lower floors only. Computed, see below."""

FILES_IN_ROOT = 6

MODULES = read_package()
PURE_ROOMS = ("plan", "checks", "config", "inventory", "facts")
PURE = [module for module in MODULES.values() if module.room in PURE_ROOMS or module.name == "support.shell"]
ON_HOSTS = [module for module in MODULES.values() if module.room in ("remote", "serve")]


def ours(module: Module) -> set[str]:
    """Return the modules of this package that a module imports."""
    modules = set()
    for name in module.imports:
        package, _, rest = name.partition(".")
        while package == "flagscale_deploy" and rest and rest not in MODULES:
            rest = rest.rpartition(".")[0]
        if package == "flagscale_deploy" and rest:
            modules.add(rest)
    return modules


def folder_of(name: str) -> str:
    """Return the folder that a module lies in; a module of the root is a room of its own."""
    return name if name in PACKAGES or "." not in name else name.rpartition(".")[0]


PACKAGES = {name for name in MODULES if any(other.startswith(f"{name}.") for other in MODULES)}


@cache
def arrows() -> dict[str, set[str]]:
    """Return the folders that each folder imports from."""
    folders: dict[str, set[str]] = {folder_of(name): set() for name in MODULES if name}
    for name in filter(None, MODULES):
        folders[folder_of(name)] |= {folder_of(other) for other in ours(MODULES[name])} - {folder_of(name)}
    return folders


def test_the_floors_are_these_and_folders_import_downward_only() -> None:
    """A folder's floor is one above the highest that it imports from. A circle has none."""
    floors: list[tuple[str, ...]] = []
    waiting = dict(arrows())
    while waiting:
        free = sorted(folder for folder, needs in waiting.items() if not needs & waiting.keys())
        assert free, f"a circle among the folders {sorted(waiting)}"
        floors.append(tuple(free))
        waiting = {folder: needs for folder, needs in waiting.items() if folder not in free}
    assert tuple(floors) == FLOORS


def test_there_is_no_circle_between_modules() -> None:
    done: set[str] = set()
    waiting = {name: ours(module) - {name} for name, module in MODULES.items()}
    while waiting:
        free = [name for name, needs in waiting.items() if needs <= done]
        assert free, f"a circle among {sorted(waiting)}"
        done.update(free)
        waiting = {name: needs for name, needs in waiting.items() if name not in done}


def test_the_root_holds_few_files() -> None:
    files = [name for name in MODULES if "." not in name and name not in PACKAGES]
    assert len(files) <= FILES_IN_ROOT, files


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("click", ("cli",)),
        ("fabric", ()),
        ("invoke", ()),
        ("paramiko", ("transport",)),
        ("rich", ("output",)),
        ("jinja2", ("rendering", "inventory.references", "support.sandbox", "support.template_budget")),
        ("omegaconf", ("config",)),
        ("pydantic", ("config", "inventory.keys", "transport.replies")),
        (
            "subprocess",
            ("transport.local", "transport.ssh_config", "transport.proxy_command", "transport.revoked_keys", "remote"),
        ),
        ("yaml", ("support.yaml", "config.source", "inventory.document", "serve")),
        ("aiohttp", ("gate",)),
        ("asyncio", ("gate",)),
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
        if module.room in ("plan", "checks", "facts") or module.name == "support.shell":
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


def test_what_only_linux_has_is_behind_one_module() -> None:
    """The operator's machine may be another POSIX system. Hosts run Linux."""
    names = {name for listed in ONLY_LINUX.values() for name in listed.split()}
    operator = [module for module in MODULES.values() if module not in ON_HOSTS and module.room != "gate"]
    using = {module.name for module in operator if module.attributes & names}
    reading = {module.name for module in operator if re.search(r"""["'](/proc|/sys)/""", module.text)}
    assert using | reading <= {"support.platform"}


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
        foreign -= {"typing_extensions"} if module.name == "remote.messages.program" else set()  # does without it, too
        assert foreign <= STANDARD_LIBRARY_38 | BROUGHT[module.room], module.name


def test_the_gate_needs_nothing_but_aiohttp() -> None:
    """What else it imports of libraries comes with aiohttp. It is sent to hosts without the rest of the package."""
    for module in (module for module in MODULES.values() if module.room == "gate"):
        others = {name for name in module.imports if not name.startswith("flagscale_deploy.gate")}
        foreign = {name.split(".")[0] for name in others} - sys.stdlib_module_names
        assert foreign <= {"aiohttp", "multidict", "yarl"}, module.name


def test_what_runs_on_hosts_calls_nothing_younger_than_python_3_8() -> None:
    """What is easily written and is not there, syntax apart: methods, functions and generics of 3.9 and later."""
    young = {"removeprefix", "removesuffix", "hardlink_to", "bit_count", "pairwise", "batched"}
    assert {module.name: module.attributes & young for module in ON_HOSTS if module.attributes & young} == {}
    assert {module.name: generics for module in ON_HOSTS if (generics := sorted(_generics(module)))} == {}


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
    names = {value.id for value in subscripted if isinstance(value, ast.Name)}
    return names & {"list", "dict", "tuple", "set", "frozenset", "type"}


def test_few_mappings_hold_anything() -> None:
    """Whatever a mapping holds is named: by a TypedDict, a dataclass, or `object` for a JSON document."""
    assert untyped_mappings() <= UNTYPED_MAPPINGS


def untyped_mappings() -> float:
    """Return how often `dict[str, Any]` and the like stand in 1,000 lines of the package."""
    untyped = sum(len(re.findall(r"\b(?:dict|Dict|Mapping)\[str, Any\]", module.text)) for module in MODULES.values())
    return 1000 * untyped / sum(len(module.text.splitlines()) for module in MODULES.values())


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
    assert set(writers) <= {"output.console", "cli.options"}  # which closes it when nobody reads it any more


def test_our_own_code_is_never_mocked() -> None:
    files = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))}
    mocking = {path.name: ast.parse(text) for path, text in files.items() if "mock" in text}
    assert [
        name
        for name, tree in mocking.items()
        if any(module.startswith("unittest.mock") for module in imported(list(ast.walk(tree))))
    ] == []


VAGUE = {"each", "found", "said", "known", "told"}


def test_variables_are_named_after_what_they_hold() -> None:
    vague = []
    for top in ("flagscale_deploy", "tests", "benchmarks", "docs", "examples"):
        for path in sorted((ROOT / top).rglob("*.py")):
            place = path.relative_to(ROOT)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            vague += [f"{place}:{line}: {name}" for line, name in variables(tree) if name in VAGUE]
    assert vague == []


def variables(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and name of every variable and argument; fields of classes are contracts, and left out."""
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fields = [statement.target for body in bodies for statement in body if isinstance(statement, ast.AnnAssign)]
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in fields:
            yield node.lineno, node.id
