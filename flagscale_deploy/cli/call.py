"""The command `call`: send a chat completion to a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.option_types import MOST_TOKENS, TEXT, Number, Whole
from flagscale_deploy.cli.options import DEPLOYMENT, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console


@click.command(cls=Command, section="look", example='flagscale-deploy call -i hosts.yaml --name qwen "Who are you?"')
@click.argument("text", type=TEXT)
@click.option(
    "--max-tokens",
    metavar="N",
    type=Whole(1, MOST_TOKENS),
    default=256,
    show_default=True,
    help="Longest answer, in tokens.",
)
@click.option(
    "--temperature",
    metavar="NUMBER",
    type=Number(0, 100),
    help="0 gives the same answer each time. Default: the server's.",
)
@click.option("--system", metavar="TEXT", type=TEXT, help="A system message before TEXT.")
@options(*DEPLOYMENT, JSON)
@command
def call(console: Console, *, text: str, as_json: bool, system: str | None, **words: Any) -> int:
    """Send a chat completion to the deployment, through SSH, and print the answer."""
    from flagscale_deploy import api

    request = request_of(console, words)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    parameters = {name: value for name, value in words.items() if value is not None}
    answer = api.call(request, messages, **parameters)
    if as_json:
        console.json(answer)
    else:
        console.text(answer["choices"][0]["message"].get("content") or "")
    return 0
