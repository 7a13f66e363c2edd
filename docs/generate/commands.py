"""The command line as click knows it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from docs.generate.markdown import table
from flagscale_deploy.cli import cli

COMMON = (
    *("--inventory", "--config", "--config-path", "--config-name", "--recipes", "--name", "--limit", "--forks"),
    *("--json", "--quiet", "--verbose", "--no-color"),
)
"""Options of most commands, which are described once."""


def overview() -> str:
    """Return a row for each command."""
    rows = [(f"[`{name}`](#{name})", _help(command)) for name, command in cli.commands.items()]
    return table(("command", "does"), rows)


def options_of_each() -> str:
    """Return a section for each command: its usage and its own options."""
    return "\n".join(_section(name, command) for name, command in cli.commands.items())


def common_options() -> str:
    """Return a row for each option of most commands."""
    every = {option.opts[-1]: option for command in cli.commands.values() for option in _options(command)}
    return table(("option", "means", "default"), [_row(every[name]) for name in COMMON])


def _section(name: str, command: click.Command) -> str:
    # With the group's settings: click remembers a command's help option from its first context.
    context = click.Context(command, parent=click.Context(cli, **cli.context_settings))
    usage = " ".join(command.collect_usage_pieces(context))
    own = [_row(option) for option in _options(command) if option.opts[-1] not in COMMON]
    options = table(("its own option", "means", "default"), own) if own else "No options of its own.\n"
    return f"### {name}\n\n`flagscale-deploy {name} {usage}`\n\n{_help(command)}\n\n{options}"


def _options(command: click.Command) -> Iterator[click.Option]:
    """Yield the options; `--help` is click's own."""
    yield from (option for option in command.params if isinstance(option, click.Option))


def _row(option: click.Option) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in sorted(option.opts, key=len))
    value = "" if option.is_flag or option.count else f" {_value(option)}"
    default = option.default if option.show_default else ""
    more = " Repeatable." if option.multiple and "often" not in (option.help or "") else ""
    return (
        f"{names}{value}",
        _escaped(option.help or "") + more,
        f"{default:g}" if isinstance(default, float) else f"{default}",
    )


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return " · ".join(f"`{choice}`" for choice in option.type.choices)
    return option.metavar or option.type.name.split()[0].upper()


def _help(command: click.Command) -> str:
    """Return the help text without the paragraphs that click leaves as they are, and the sentence before one."""
    paragraphs = (command.help or "").split("\n\n")
    text = " ".join(" ".join(part.split()) for part in paragraphs if "\b" not in part)
    return _escaped(re.sub(r" [^.]*:$", "", text))


def _escaped(text: str) -> str:
    """Return a help text in which `DIR/<host>/` is no tag of HTML."""
    return text.replace("<", "&lt;")
