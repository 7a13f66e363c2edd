"""`--help`: what is listed where, and examples that the tool itself understands."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from flagscale_deploy.cli import COMMANDS, cli
from flagscale_deploy.cli.help import SECTIONS, SHARED, Command

PROGRAM = "flagscale-deploy"
PARTS = re.compile(r"^(\S.*):\n((?:(?:  .*)?\n)+)", re.MULTILINE)


def shown(*words: str, width: int = 80) -> str:
    return CliRunner().invoke(cli, [*words, "--help"], prog_name=PROGRAM, terminal_width=width).stdout


def parts(text: str) -> dict[str, str]:
    """Return the parts of a help text by their titles, each on one line."""
    return {title: " ".join(body.split()) for title, body in PARTS.findall(text)}


def joined(text: str | None) -> str:
    """Return a text without its white space: where lines are folded does not matter."""
    return "".join((text or "").replace("\b", "").split())


def test_commands_are_listed_by_section() -> None:
    listed = parts(shown(width=200))
    for command in COMMANDS:
        assert isinstance(command, Command)
        assert re.search(rf"(^| ){command.name} [A-Z]", listed[command.section.capitalize()]), command.name
    used = [section.capitalize() for section in SECTIONS if any(command.section == section for command in COMMANDS)]
    assert [title for title in listed if title not in ("Options", "Exit status")] == used


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_sentence_is_cut_off(width: int) -> None:
    everything = joined(shown(width=width))
    for name, command in cli.commands.items():
        first = (command.help or "").split("\n\n")[0].rstrip(".")
        assert f"{name}{joined(first)}" in everything
        text = joined(shown(name, width=width))
        assert joined(command.help) in text
        for option in command.params:
            assert joined(option.help if isinstance(option, click.Option) else "") in text


@pytest.mark.parametrize("name", cli.commands)
def test_a_commands_own_options_come_first(name: str) -> None:
    command = cli.commands[name]
    listed = parts(shown(name, width=200))
    titles = [title for title in listed if title in ("Options", *SHARED)]
    assert titles == [title for title in ("Options", *SHARED) if title in titles]
    for option in command.params:
        if isinstance(option, click.Option):
            (home,) = [title for title in titles if re.search(rf"(^| |, ){option.opts[-1]}\b(?!-)", listed[title])]
            assert (home == "Options") == (not any(option.opts[-1] in names for names in SHARED.values()))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_the_example_is_understood(command: Command) -> None:
    assert f"Example:\n  {command.example}\n" in shown(str(command.name))
    words = shlex.split(re.sub(r' > .*|^eval "\$\((.*)\)"$', r"\1", command.example))
    assert words[:2] == [PROGRAM, command.name]
    with command.make_context(str(command.name), words[2:]) as context:  # raises UsageError for a word that is wrong
        assert not context.args
