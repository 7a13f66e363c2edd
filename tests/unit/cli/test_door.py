"""Every option of every command, from click's tree: what is no number, name or time ends the command at the door."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from flagscale_deploy.cli import cli
from flagscale_deploy.cli.help import ONCE

NO_NUMBERS = ("nan", "inf", "-inf", "-1", "1e400", "-1e400", "9" * 30, "9" * 5000, "0x10", "", " ", "x")
NO_NAMES = (
    "..",
    ".",
    "a/b",
    "/",
    "-x",
    "a b",
    "a\nb",
    "a\x1b[2J",
    "x" * 64,
    "x" * 5000,
    "é",
    "\udcff",
    "~",
    "$(id)",
    "",
)


def options(kinds: tuple[type, ...]) -> Iterator[tuple[str, str]]:
    for name, command in cli.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and isinstance(parameter.type, kinds) and not parameter.count:
                yield name, parameter.opts[-1]


VALUED = [
    (name, parameter.opts[-1], parameter.name in ONCE)
    for name, command in cli.commands.items()
    for parameter in command.params
    if isinstance(parameter, click.Option) and not (parameter.is_flag or parameter.multiple or parameter.count)
]
NUMBERS = [*options((click.types.IntParamType, click.types.FloatParamType))]
NAMED = [name for name, command in cli.commands.items() if any(one.name == "name" for one in command.params)]


def words(command: str) -> list[str]:
    """Return the arguments that a command cannot do without."""
    return {"call": ["hello"], "exec": ["true"], "push": ["a", "b"]}.get(command, [])


def test_every_number_has_a_range() -> None:
    assert len(NUMBERS) >= 20
    for name, option in NUMBERS:
        (parameter,) = [one for one in cli.commands[name].params if option in one.opts]
        kind = parameter.type
        assert isinstance(kind, (click.IntRange, click.FloatRange)), (name, option)
        assert kind.min is not None, (name, option)
        assert kind.max is not None, (name, option)


@pytest.mark.parametrize(("command", "option"), NUMBERS)
def test_what_is_no_number_in_the_range_is_refused(command: str, option: str) -> None:
    for value in NO_NUMBERS:
        result = CliRunner().invoke(cli, [command, option, value, *words(command)])
        assert (result.exit_code, "Invalid value" in result.output) == (2, True), (value, result.output[-300:])


@pytest.mark.parametrize("option", ["--max-size", "--max-total", "--since"])
def test_sizes_and_times_are_bounded(option: str) -> None:
    for value in (*NO_NUMBERS, "9" * 20 + "d", "1e9h", "99999-01-01", "2024-13-45", "-1h", "9" * 400 + "G"):
        result = CliRunner().invoke(cli, ["logs", option, value])
        assert (result.exit_code, "Invalid value" in result.output) == (2, True), (value, result.output[-300:])


@pytest.mark.parametrize("command", NAMED)
def test_what_is_no_name_is_refused(command: str) -> None:
    for value in NO_NAMES:
        result = CliRunner().invoke(cli, [command, f"--name={value}", *words(command)])
        assert result.exit_code == 2, (value, result.output[-300:])
        assert result.output.count("\n") < 6
        assert "internal error" not in result.output


@pytest.mark.parametrize(("command", "option", "once"), VALUED)
def test_an_empty_value_is_refused_and_a_second_one_of_what_is_acted_on(command: str, option: str, once: bool) -> None:
    for value in ("", " "):
        result = CliRunner().invoke(cli, [command, f"{option}={value}", *words(command)])
        assert (result.exit_code, "it is empty" in result.output) == (2, True), result.output[-300:]
    if once:
        result = CliRunner().invoke(cli, [command, option, "a", option, "b", *words(command)])
        assert (result.exit_code, "it is given 2 times" in result.output) == (2, True), result.output[-300:]


def test_what_is_acted_on_is_given_once_by_every_command_that_has_it() -> None:
    swept = [name for name, option, once in VALUED if once and option == "--limit"]
    assert {"run", "stop", "cleanup", "smoke", "status", "logs", "exec", "push", "hosts"} <= {*swept}


@pytest.mark.parametrize(
    "line",
    ["hosts --json --forks abc", "hosts --json --bogus", "logs --json --tail", "call --json", "--bogus --json",
     "nosuch --json", "run --json --lock-timeout nan", "exec --json"],
)  # fmt: skip
def test_a_usage_error_with_json_is_json_too(line: str) -> None:
    done = CliRunner().invoke(cli, line.split())
    content = json.loads(done.stdout)
    assert (done.exit_code, content["exit_code"], content["schema"], content["faults"]) == (2, 2, 1, [])
    assert content["error"] in done.stderr


def test_json_behind_two_dashes_is_no_option() -> None:
    done = CliRunner().invoke(cli, ["hosts", "--forks", "abc", "--", "--json"])
    assert (done.exit_code, done.stdout) == (2, "")


def test_a_usage_error_in_json_shows_no_secret() -> None:
    done = CliRunner().invoke(cli, ["hosts", "--json", "--forks", "api_key=canary-4711-canary"])
    assert "canary-4711" not in done.stdout + done.stderr
    assert json.loads(done.stdout)["exit_code"] == 2
