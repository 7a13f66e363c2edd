"""What the operator's side is installed with: floors at versions with mends, and a file that pins all with hashes."""

from __future__ import annotations

import re
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FLOORS = {"jinja2": "3.1.6", "paramiko": "5", "cryptography": "50"}
"""The first versions without a vulnerability that concerns us: Jinja2's sandbox leaked the operator's environment."""


def required() -> dict[str, Requirement]:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = [line.strip() for line in setup["options"]["install_requires"].splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def pinned() -> list[tuple[Requirement, int]]:
    """Return each pin, and the number of its hashes."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(Requirement(line.split(" --hash")[0].strip()), len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line)))
            for line in lines]  # fmt: skip


def test_the_floors_are_at_mended_versions() -> None:
    requirements = required()
    for name, floor in FLOORS.items():
        (lowest,) = [Version(part.version) for part in requirements[name].specifier if part.operator == ">="]
        assert lowest >= Version(floor), name


def test_every_requirement_has_a_floor() -> None:
    assert [name for name, requirement in required().items() if ">=" not in str(requirement.specifier)] == []


def test_what_is_installed_is_within_the_floors() -> None:
    wrong = {
        name: version(name) for name, requirement in required().items() if version(name) not in requirement.specifier
    }
    assert wrong == {}


def test_the_constraints_pin_every_requirement_within_its_floor() -> None:
    pins = [(canonicalize_name(requirement.name), requirement) for requirement, _ in pinned()]
    assert required().keys() <= {name for name, _ in pins}
    for name, pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert name not in required() or exact.version in required()[name].specifier, name


def test_every_pin_has_hashes_and_none_says_where_from() -> None:
    assert [str(pin) for pin, hashes in pinned() if not hashes] == []
    assert re.findall(r"https?://|--.*index|@ ", (ROOT / "constraints.txt").read_text(encoding="utf-8")) == []
