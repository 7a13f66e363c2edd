"""No text of a host is a command to a CI system that reads commands in what a job prints."""

from __future__ import annotations

import json
import re

import pytest

from flagscale_deploy.events import Event
from flagscale_deploy.output import ci
from flagscale_deploy.output.console import Console

COMMANDS = (
    "::set-output name=x::evil",
    " \t ::add-path::/evil",
    "::error file=a::b::c",
    ":::stop-commands::x",
    "##[set-output name=x;]evil",
    "so ##[add-path]/evil",
    "###[error]x",
    "##vso[task.setvariable variable=PATH]evil",
    "so ##teamcity[buildStatus text='evil']",
)


def commands(text: str) -> list[str]:
    """Return the lines that GitHub's runner (ActionCommand.cs), Azure's agent or TeamCity take for commands."""
    lines = text.split("\n")
    return [line for line in lines if line.lstrip().startswith("::") or re.search(r"##(?:vso|teamcity)?\[", line)]


@pytest.fixture(params=ci.SYSTEMS)
def in_ci(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ci.SYSTEMS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(request.param, "true")


def show(console: Console, text: str) -> None:
    """Print a text in every way."""
    console.print(text, f"ok\n{text}")
    console.text(f"{text}\nok\n{text}")
    console.error(text)
    console.note(text)
    console.table(text, (text, "B"), [(text, "b"), ((text, text), text)])
    console.write(f"{text}\n")
    with console.progress("run") as progress:
        progress(Event("run", "failed", "gpu01", text, lines=(text, text)))
    console.settle()


@pytest.mark.usefixtures("in_ci")
@pytest.mark.parametrize("text", COMMANDS)
def test_nothing_that_is_printed_is_a_command(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert commands(text)
    show(Console(color=False), text)
    printed = capfd.readouterr()
    assert printed.out
    assert printed.err
    assert commands(printed.out) + commands(printed.err) == []


@pytest.mark.usefixtures("in_ci")
@pytest.mark.parametrize("text", COMMANDS)
def test_json_means_the_same_and_holds_no_command(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = {text: [text, {"a": f"{text}\n{text}"}]}
    console = Console(color=False)
    console.json(content)
    printed = capfd.readouterr().out
    lines = console.json_lines([{"line": text}, {"host": text}])
    assert commands(printed) + commands(lines) == []
    assert json.loads(printed) == content
    assert [json.loads(line) for line in lines.splitlines()] == [{"line": text}, {"host": text}]


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_that_comes_in_pieces_is_none(text: str) -> None:
    whole = f"before\n{text}\n{' ' * 70}{text}\n{'y' * 70}{text}\nafter"
    for size in range(1, 40):
        breaker = ci.Breaker()
        written = "".join(breaker.broken(whole[at : at + size]) for at in range(0, len(whole), size))
        assert commands(written) == []
        assert re.sub(" ", "", written) == re.sub(" ", "", whole)


def test_elsewhere_text_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ci.SYSTEMS:
        monkeypatch.delenv(name, raising=False)
    console = Console(color=False)
    console.print(*COMMANDS[2:])
    console.json({"a": COMMANDS[-1]})
    printed = capfd.readouterr().out
    assert all(text in printed for text in COMMANDS[2:])
    assert ci.in_json("##") == "##"
