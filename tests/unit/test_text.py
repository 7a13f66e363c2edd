"""Text of a host stays on its line and shows all that it holds, in every error, fault, event and report."""

from __future__ import annotations

import importlib
import inspect
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from flagscale_deploy.api.cases import Case
from flagscale_deploy.deploy.bring_up import Failure, RunFailedError
from flagscale_deploy.deploy.launch import StepsFailedError
from flagscale_deploy.deploy.readiness import InstanceFailedError
from flagscale_deploy.deploy.run_folder import RunFolder
from flagscale_deploy.deploy.update import ChangeFailedError
from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.errors import CheckError, DeployError, Fault, FaultsError, HostError, HostsFailedError
from flagscale_deploy.events import Event
from flagscale_deploy.output.junit import write_junit
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.text import LONGEST_LINE, bare, one_line, plain
from tests.unit.deploy.given import PLAN
from tests.unit.sources import read_package

ENDS = ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
SMUGGLED = "x" + "".join(f"{end}✗ gpu09: all is well{end}    → run rm -rf /" for end in ENDS)


def subclasses(kind: type[DeployError]) -> Iterator[type[DeployError]]:
    for module in read_package():
        if module != "__main__":
            importlib.import_module(f"flagscale_deploy.{module}".rstrip("."))
    waiting = [kind]
    while waiting:
        kind = waiting.pop()
        yield kind
        waiting += kind.__subclasses__()


KINDS = sorted(set(subclasses(DeployError)), key=lambda kind: kind.__name__)


def made(kind: type[DeployError]) -> DeployError:
    """Return an error of this class about gpu01, with smuggled line ends in every text."""
    inner = HostError("gpu01", SMUGGLED, SMUGGLED, [SMUGGLED])
    if issubclass(kind, InstanceFailedError):
        return kind(PLAN.servers[0].ranks[0], SMUGGLED, [SMUGGLED], SMUGGLED)
    if issubclass(kind, RunFailedError):
        return kind(Failure(inner), RunFolder(Path("/out"), str), "qwen")
    if issubclass(kind, ChangeFailedError):
        diagnosis = Diagnosis("gpu01", "vllm.log", SMUGGLED, SMUGGLED, SMUGGLED)
        return kind(Failure(inner, diagnosis), "c1", put_back=False)
    if issubclass(kind, StepsFailedError):
        return kind({"gpu01": inner})
    if issubclass(kind, HostsFailedError):
        return kind([inner])
    if issubclass(kind, HostError):
        return kind("gpu01", SMUGGLED, SMUGGLED, [SMUGGLED])
    if issubclass(kind, FaultsError):
        return kind([Fault("gpu01", SMUGGLED, SMUGGLED)])
    return kind(f"gpu01: {SMUGGLED}")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_text_of_a_host_begins_a_line_of_an_error(kind: type[DeployError]) -> None:
    error = made(kind)
    lines = str(error).splitlines()
    assert tuple(lines) == error.lines
    most = 7 if kind is ChangeFailedError else 3
    assert len(lines) <= most, "the problem, a line of a log, and the remedy; of a change, what is left to do, too"
    shape = re.compile(r"gpu01: |    gpu01 \| |    → |the change is not over$")
    assert all(shape.match(line) for line in lines), lines
    assert sum(line.startswith("    → ") for line in lines) <= most // 2


def test_every_class_of_errors_is_tried() -> None:
    assert len(KINDS) >= 20
    assert {kind for kind in KINDS if "__init__" in vars(kind)} <= {
        DeployError, FaultsError, HostError, HostsFailedError, RunFailedError, StepsFailedError, InstanceFailedError,
        ChangeFailedError,
    }, "a class with arguments of its own: make one in `made`"  # fmt: skip
    assert inspect.isclass(CheckError)


def test_faults_events_and_diagnoses_are_on_one_line_each() -> None:
    fault = Fault(SMUGGLED, SMUGGLED, SMUGGLED)
    assert len(str(fault).splitlines()) == 2
    assert len(Event("serve", "note", "gpu01", SMUGGLED).text.splitlines()) == 1
    assert len(str(Diagnosis("gpu01", SMUGGLED, SMUGGLED, "cause", "remedy")).splitlines()) == 3


def test_a_junit_file_has_a_line_for_a_line(tmp_path: Path) -> None:
    case = Case("run", "gpu01", "failed", message=SMUGGLED, lines=(SMUGGLED, "    → remedy"))
    write_junit(
        "qwen", [case, Case("stop", "gpu01", "passed", message=SMUGGLED)], tmp_path / "r.xml", Redactor().redact
    )
    texts = [
        text for element in ET.parse(tmp_path / "r.xml").iter() for text in (element.text, *element.attrib.values())
    ]
    assert max(len((text or "").splitlines()) for text in texts) == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m b", "ared b"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x9b2Jb\x90dcs\x9cc", "abc"),
        ("a\u202eb\u200bc\u2060d\ufeffe", "abcde"),
        ("a\U000e0041\U000e0042b", "ab"),
        ("a\u3164\u2800b", "ab"),
        ("e" + "\u0301" * 500 + "x", "e" + "\u0301" * 0 + "x"),
        ("schön 模型 é\u0301 ✔\ufe0f", "schön 模型 é\u0301 ✔\ufe0f"),
        ("a\tb", "a\tb"),
    ],
)
def test_what_a_terminal_would_show(text: str, shown: str) -> None:
    assert bare(text) == shown
    assert one_line(text) == shown


def test_what_is_not_printable_is_escaped_where_text_is_shown_as_it_is() -> None:
    assert plain("a\x1b[31mb\x1b[2J\x07\u202e\u3164\nc") == "ab\\x1b[2J\\x07\\x202e\\x3164\nc"
    assert len(plain("e" + "\u0301" * 500)) == 5
    assert one_line("\na\r\nb\u2028c\n") == "a\\r\\nb\\x2028c"


def test_a_very_long_line_is_cut() -> None:
    assert len(one_line("x" * (1 << 20))) < LONGEST_LINE + 100
    assert one_line("x" * (1 << 20)).endswith("characters cut]")
