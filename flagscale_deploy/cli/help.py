"""Format `--help`: commands by section, a command's own options first, one example each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import click

SECTIONS = ("deploy", "look", "hosts", "measure", "shell")
"""What commands are for, in the order in which they are listed."""

SHARED = {
    "Hosts and deployment": (
        "--inventory",
        "--config",
        "--config-path",
        "--config-name",
        "--name",
        "--limit",
        "--forks",
    ),
    "Output": ("--json", "--quiet", "--verbose", "--no-color", "--help"),
}
"""Options of most commands, listed after a command's own."""

ONCE = ("inventory", "config", "config_path", "config_name", "name", "limit", "without")
"""Options that name what a command acts on: of two values, one would be left out without a word."""


class UsageErrorAsJson(click.UsageError):
    """An error in the words of a command with `--json`: it is printed as JSON as well."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print what click prints on standard error, then the error as JSON."""
        super().show(file)
        click.echo(json.dumps({"schema": 1, "error": self.message, "exit_code": self.exit_code, "faults": []}))


@contextmanager
def quoting_no_secret(words: Sequence[str]) -> Iterator[None]:
    """Hide in click's own errors what the words of the command line hold of secrets, or what looks like one."""
    from flagscale_deploy.secrets import Redactor
    from flagscale_deploy.support.learn_secrets import learn_text, learning
    from flagscale_deploy.text import one_line

    words = list(words)  # click takes them out of its own list
    try:
        yield
    except click.UsageError as error:
        redactor = Redactor()
        with learning(redactor):
            for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
                learn_text(word)
                learn_text(f"{word.lstrip('-')}={following}" if word.startswith("--") else "")
        shown, hidden = error.format_message(), redactor.redact(one_line(error.format_message()))
        as_json = "--json" in itertools.takewhile(lambda word: word != "--", words)
        if shown == hidden and not as_json:
            raise
        raise (UsageErrorAsJson if as_json else click.UsageError)(hidden, error.ctx) from None


class Command(click.Command):
    """A command that is listed in a section and shows an example."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        """Do what click does; its errors show no secret."""
        with quoting_no_secret(args):
            return super().make_context(info_name, args, *more, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Do what click does. Raises UsageError for an empty value, and where one of ONCE is given twice."""
        if not ctx.resilient_parsing:
            values, _, order = self.make_parser(ctx).parse_args(list(args))
            for option in (parameter for parameter in self.params if isinstance(parameter, click.Option)):
                if not option.multiple and str(values.get(option.name or "", "x")).strip() == "":
                    raise click.BadParameter("it is empty", ctx, option)
                if option.name in ONCE and order.count(option) > 1:
                    raise click.BadParameter(f"it is given {order.count(option)} times; give it once", ctx, option)
        return super().parse_args(ctx, args)

    def __init__(self, *args: Any, section: str, example: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        assert section in SECTIONS, section
        self.section, self.example = section, example

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the command does, and the example."""
        super().format_help_text(ctx, formatter)
        with formatter.section("Example"):
            formatter.write(f"{'':{formatter.current_indent}}{self.example}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then those that others have as well."""
        sections: dict[str, list[click.Option]] = {"Options": [], **{title: [] for title in SHARED}}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option):
                sections[_section_of(option)].append(option)
        for title, members in sections.items():
            rows = [row for option in members if (row := option.get_help_record(ctx)) is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Commands(click.Group):
    """All commands, listed by section, with their first sentences whole."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        """Do what click does; its errors show no secret."""
        with quoting_no_secret(args):
            return super().make_context(info_name, args, *more, **extra)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Do what click does; its errors show no secret."""
        with quoting_no_secret(args):
            return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list for each section that has commands."""
        for section in SECTIONS:
            rows = [
                (name, command.get_short_help_str(limit=1000))
                for name, command in self.commands.items()
                if isinstance(command, Command) and command.section == section
            ]
            if rows:
                with formatter.section(section.capitalize()):
                    formatter.write_dl(rows)


def _section_of(option: click.Option) -> str:
    return next((title for title, names in SHARED.items() if {*names} & {*option.opts}), "Options")
