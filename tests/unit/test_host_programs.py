"""Every host program has one descriptor, and takes and sends what that says."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import typing
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import is_typeddict

from flagscale_deploy.remote import messages, programs
from flagscale_deploy.remote.messages.program import HostProgram

MODULES = [
    importlib.import_module(f"{messages.__name__}.{module.name}") for module in pkgutil.iter_modules(messages.__path__)
]
TYPES: dict[str, Any] = {name: value for module in MODULES for name, value in vars(module).items()}
DESCRIPTORS = {value.name: value for value in TYPES.values() if isinstance(value, HostProgram)}
PROGRAMS = sorted(module.name for module in pkgutil.iter_modules(programs.__path__))
TOLD = {"push_host", "push_source"}
"""What these send goes through `remote/push/orders.py`."""


def test_every_host_program_has_a_descriptor() -> None:
    assert sorted(DESCRIPTORS) == PROGRAMS


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - TOLD))
def test_a_program_takes_and_sends_what_its_descriptor_says(name: str) -> None:
    arguments, reply, _order = typing.get_args(typing.cast(Any, DESCRIPTORS[name]).__orig_class__)
    tree = ast.parse(Path(next(iter(programs.__path__)), f"{name}.py").read_text(encoding="utf-8"))
    (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    (send,) = (node for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "send")
    taken, sent = main.args.args[0].annotation, send.annotation
    assert taken is not None
    assert TYPES[ast.unparse(taken)] == arguments
    assert TYPES[ast.unparse(sent).removeprefix("Callable[[").removesuffix("], None]")] == reply


def test_every_type_of_a_message_can_be_read_as_documentation_reads_it() -> None:
    for name, message in TYPES.items():
        if is_typeddict(message) and not name.startswith("_"):
            assert typing.get_type_hints(message).keys() == message.__annotations__.keys(), name
            assert message.__doc__, name
