"""`push`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.options import HOSTS, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(
    cls=Command, section="hosts", example="flagscale-deploy push gpu01:/models/qwen /models/qwen -i hosts.yaml"
)
@click.argument("source", metavar="SRC")
@click.argument("dest")
@click.option("--check", is_flag=True, help="Only compare: list what is missing or different on which host.")
@click.option(
    "--checksum", is_flag=True, help="Hash all files again, also those unchanged since they were last hashed."
)
@click.option("--copy-links", is_flag=True, help="Send the targets of symbolic links in place of the links.")
@options(*HOSTS, JSON)
@command
def push(console: Console, *, as_json: bool, source: str, dest: str, **words: Any) -> int:
    """Copy a file or directory to DEST on all hosts, which pass it on to each other.

    SRC is a path on this machine, or HOST:PATH.
    """
    from flagscale_deploy import api
    from flagscale_deploy.output import push as view

    request = request_of(console, words, acts=True)
    with console.progress("push") as progress:
        report = api.push(request, source, dest, say=progress, **words)
    if as_json:
        console.json(view.push_json(report))
    else:
        view.show_push(console, report)
    return report.exit_code
