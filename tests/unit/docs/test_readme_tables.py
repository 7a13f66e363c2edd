"""Commands, options, exit statuses, templates and links of the README are those of the tool."""

from __future__ import annotations

import re

import click
import pytest

from flagscale_deploy import errors
from flagscale_deploy.cli import cli
from flagscale_deploy.errors import DeployError
from tests.docs.readme import REPOSITORY, TEXT, code, tables

COMMON = {
    *("--inventory", "--config", "--config-path", "--config-name", "--name", "--limit", "--forks"),
    *("--json", "--quiet", "--verbose", "--no-color"),
}
"""Options of most commands, which the README describes once."""


def options(command: click.Command) -> set[str]:
    return {
        word
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for word in parameter.opts
        if word.startswith("--")
    }


def long_options(cell: str) -> set[str]:
    return {word for word in code(cell) if word.startswith("--")}


def test_every_command_is_in_the_table() -> None:
    (rows,) = tables("command")
    assert sorted(code(row[0])[0].split()[0] for row in rows) == sorted(cli.commands)


@pytest.mark.parametrize("name", cli.commands)
def test_every_option_of_a_command_is_in_its_row(name: str) -> None:
    (row,) = (row for row in tables("command")[0] if code(row[0])[0].split()[0] == name)
    assert long_options(row[2]) == options(cli.commands[name]) - COMMON


def test_the_options_of_several_commands_are_described() -> None:
    (rows,) = tables("option")
    described = {option for row in rows for option in long_options(row[0])}
    assert described == COMMON | {"--force", "--templates", "--lock-timeout"}


def test_every_exit_status_is_in_the_table() -> None:
    (rows,) = tables("exit status")
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, DeployError)]
    assert [int(row[0]) for row in rows] == sorted({0} | {kind.exit_code for kind in kinds})


def test_every_template_is_in_the_table() -> None:
    (rows,) = tables("template")
    assert sorted(code(row[0])[0] for row in rows) == sorted(
        path.name for path in (REPOSITORY / "templates").glob("*.j2")
    )


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)\s]+)\)", TEXT))))
def test_a_link_leads_somewhere(link: str) -> None:
    headings = [
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", TEXT, re.M)
    ]
    if link.startswith("#"):
        assert link[1:] in headings
    else:
        assert (REPOSITORY / link).exists()
