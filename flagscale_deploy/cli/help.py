"""Format `--help`: commands by section, a command's own options first, one example each."""

from __future__ import annotations

from typing import Any

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


class Command(click.Command):
    """A command that is listed in a section and shows an example."""

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
