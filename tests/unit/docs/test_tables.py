"""Commands, options, exit statuses, templates and links of the pages are those of the tool."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import click
import pytest

from flagscale_deploy import errors
from flagscale_deploy.cli import cli
from flagscale_deploy.errors import DeployError
from tests.docs.pages import PAGES, REPOSITORY, code, tables

PAGE = "docs/commands.md"
COMMON = {
    *("--inventory", "--config", "--config-path", "--config-name", "--recipes", "--name", "--limit", "--forks"),
    *("--json", "--quiet", "--verbose", "--no-color"),
}
"""Options of most commands, which the page describes once."""
LINKS = sorted({(page, link) for page, text in PAGES.items() for link in re.findall(r"\]\(([^)\s]+)\)", text)})

MENTIONED = sorted(
    {
        (page, words)
        for page, text in PAGES.items()
        for words in re.findall(r"`([^`\n]+)`", text)
        if re.match(rf"(?:flagscale-deploy )?(?:{'|'.join(cli.commands)}) .*-", words)
    }
)
"""Commands with options in the midst of a text."""


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


def described(command: str) -> set[str]:
    """Return the options in the section of a command."""
    section = re.search(rf"^### {command}\n(.*?)(?=^##|^<!-- end|\Z)", PAGES[PAGE], re.MULTILINE | re.DOTALL)
    assert section is not None
    return {
        option
        for row in re.findall(r"^\|(.*)\|$", section[1], re.MULTILINE)
        for option in long_options(row.split(" | ")[0])
    }


def test_every_command_is_in_the_table() -> None:
    (rows,) = tables("command", PAGE)
    assert sorted(code(row[0])[0].split()[0] for row in rows) == sorted(cli.commands)


@pytest.mark.parametrize("name", cli.commands)
def test_every_option_of_a_command_is_in_its_section(name: str) -> None:
    assert described(name) == options(cli.commands[name]) - COMMON


def test_the_options_of_most_commands_are_described() -> None:
    (rows,) = tables("option", PAGE)
    assert {option for row in rows for option in long_options(row[0])} == COMMON


def test_every_exit_status_is_in_the_table() -> None:
    (rows,) = tables("exit status", PAGE)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DeployError)]
    assert [int(row[0]) for row in rows] == sorted({0} | {kind.exit_code for kind in kinds})


def test_every_template_is_in_the_table() -> None:
    (rows,) = tables("template", "docs/templates.md")
    assert sorted(code(row[0])[0] for row in rows) == sorted(
        path.name for path in (REPOSITORY / "templates").glob("*.j2")
    )


def test_the_texts_in_the_table_of_symptoms_are_the_tool_s_own() -> None:
    (rows,) = tables("you see", "docs/troubleshooting.md")
    texts = [text for row in rows for text in code(row[0]) if text not in cli.commands]
    sources = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "flagscale_deploy").rglob("*.py"))
    source = re.sub(r'"\s*f?"', "", sources)  # a text over two lines
    parts = [part.strip() for text in texts for part in re.split(r"…|\d+", text)]
    assert len(texts) > 6
    assert [part for part in parts if part not in source] == []


def test_every_host_program_is_in_the_protocol() -> None:
    listed = [code(row[0])[0] for rows in tables("program", "docs/internals/protocol.md") for row in rows]
    programs = (REPOSITORY / "flagscale_deploy/remote/programs").glob("[a-z]*.py")
    assert sorted(listed) == sorted(path.stem for path in programs)


def test_every_path_that_the_architecture_names_exists() -> None:
    texts = re.findall(r"`([^`\n]+)`", PAGES["docs/internals/architecture.md"])
    paths = [text for text in texts if re.fullmatch(r"[a-z_/]+(?:/|\.py|\.yaml)", text)]
    assert len(paths) > 40
    roots = (REPOSITORY, REPOSITORY / "flagscale_deploy")
    assert [path for path in paths if not any((root / path).exists() for root in roots)] == []


@pytest.mark.parametrize(("page", "words"), MENTIONED)
def test_a_command_that_a_text_mentions_has_the_options_that_it_names(page: str, words: str) -> None:
    _, name, *rest = ["", *words.removeprefix("flagscale-deploy ").split()]
    command = cli.commands[name]
    all_options = {word for option in command.params if isinstance(option, click.Option) for word in option.opts}
    given = [word.partition("=")[0] for word in rest[: (*rest, "--").index("--")] if word.startswith("-")]
    assert set(given) <= all_options | {"--help"}, page


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_link_leads_somewhere(page: str, link: str) -> None:
    if link.startswith("https://"):
        return
    path, _, anchor = link.partition("#")
    target = (REPOSITORY / PurePosixPath(page).parent / path).resolve() if path else REPOSITORY / page
    assert target.exists()
    if anchor:
        assert anchor in anchors(PAGES[target.relative_to(REPOSITORY).as_posix()])


def anchors(text: str) -> list[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
