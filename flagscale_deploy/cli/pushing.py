"""`push`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.options import HOSTS, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.console import Console


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("dest")
@options(*HOSTS, JSON)
@click.option("--check", is_flag=True, help="Only compare: say what is missing or different on which host.")
@click.option("--checksum", is_flag=True, help="Hash again what was hashed before and has not changed since.")
@click.option("--copy-links", is_flag=True, help="Send what symbolic links lead to in their place.")
@command
def push(console: Console, *, as_json: bool, source: str, dest: str, **words: Any) -> int:
    """Copy a directory or file, here or HOST:PATH, to DEST on all hosts, which pass it on to each other.

    \b
    push /models/qwen /models/qwen -i hosts.yaml
    push gpu01:/models/qwen /models/qwen -i hosts.yaml
    """
    from flagscale_deploy import api
    from flagscale_deploy.views import push as view

    request = request_of(console, words)
    with console.progress("push") as progress:
        report = api.push(request, source, dest, say=progress, **words)
    if as_json:
        console.json(view.push_json(report))
    else:
        view.show_push(console, report)
    return report.exit_code
