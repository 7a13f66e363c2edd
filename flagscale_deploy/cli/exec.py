"""The command `exec`: run a command on all hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.option_types import SIZE, Number
from flagscale_deploy.cli.options import HOSTS, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(
    name="exec",
    cls=Command,
    section="hosts",
    example="flagscale-deploy exec -i hosts.yaml -- nvidia-smi -L",
    context_settings={"ignore_unknown_options": True},
)
@click.option(
    "--timeout",
    type=Number(0.1, 30 * 86_400),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Time limit of the command on each host; it is ended then, with all of its process group.",
)
@click.option(
    "--env", is_flag=True, help="Enter each host's environment first, in bash: env, venv and before_start; no secrets."
)
@click.option(
    "--max-output",
    type=SIZE,
    default="8M",
    show_default=True,
    metavar="SIZE",
    help="Keep at most this much of each output of a host: its beginning and its end.",
)
@options(*HOSTS, JSON)
@click.argument("command", nargs=-1, required=True)
@command
def exec_(
    console: Console,
    *,
    as_json: bool,
    command: tuple[str, ...],
    timeout: float,
    max_output: int,
    env: bool,
    **words: Any,
) -> int:
    """Run a command on all hosts in parallel."""
    from flagscale_deploy import api
    from flagscale_deploy.output import hosts as view

    request = request_of(console, words, acts=True)
    results = api.execute_everywhere(request, command, timeout=timeout, max_output=max_output, env=env)
    return view.show_outcomes(console, results, as_json)
