"""The command `call`: send a chat completion to a deployment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from flagscale_deploy.cli.help import Command
from flagscale_deploy.cli.option_types import MOST_TOKENS, TEXT, Number, Whole
from flagscale_deploy.cli.options import DEPLOYMENT, JSON, command, options, request_of

if TYPE_CHECKING:
    from flagscale_deploy.output.console import Console

LONGEST_TEXT = 4 << 20
"""Bytes of a text on standard input."""


@click.command(cls=Command, section="look", example='flagscale-deploy call -i hosts.yaml --name qwen "Who are you?"')
@click.argument("text", type=TEXT)
@click.option("--stream", is_flag=True, help="Print the answer word by word, as it is made.")
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
def call(console: Console, *, text: str, as_json: bool, system: str | None, stream: bool, **words: Any) -> int:
    """Send a chat completion to the deployment, through SSH, and print the answer.

    TEXT is `-` to read it from standard input.
    """
    from flagscale_deploy import api
    from flagscale_deploy.errors import InputError
    from flagscale_deploy.output.streamed import StreamedText

    if stream and as_json:
        raise InputError.at("--stream", "does not go with --json", "leave one of them out")
    request = request_of(console, words)
    text = _from_standard_input() if text == "-" else text
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    parameters = {name: value for name, value in words.items() if value is not None}
    if stream:
        with StreamedText(console) as streamed:
            api.call(request, messages, show=streamed.add, **parameters)
        return 0
    answer = api.call(request, messages, **parameters)
    if as_json:
        console.json(answer)
    else:
        console.text(answer["choices"][0]["message"].get("content") or "")
    return 0


def _from_standard_input() -> str:
    """Return the text on standard input. Raises InputError where it is empty, too long, or no UTF-8."""
    from flagscale_deploy.errors import InputError

    data = sys.stdin.buffer.read(LONGEST_TEXT + 1)
    if len(data) > LONGEST_TEXT:
        raise InputError.at("standard input", f"has more than {LONGEST_TEXT >> 20} MiB", "send less")
    try:
        text = data.decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise InputError.at("standard input", f"is not in UTF-8 at byte {error.start}") from error
    if not text:
        raise InputError.at("standard input", "is empty", "`-` reads the text from there")
    return text
