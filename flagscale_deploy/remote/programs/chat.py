"""Send a chat completion to an instance on this host."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Callable, Optional, Tuple

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.engine import openai, program

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import RecordedServer
    from flagscale_deploy.remote.messages.status import ChatArguments, ChatReply

send: Callable[[ChatReply], None] = wire.send

ANSWER_SECONDS = 590.0


def served_by(server: RecordedServer, key: Optional[str]) -> Tuple[str, str]:
    """Return URL and model of a server.

    A program of the user's own is asked for its model, if it speaks the OpenAI API.
    """
    if server.get("engine") != "program":
        return server["local_url"], server["served_name"]
    url, why = program.answers(server["addresses"], key)
    if url is None:
        raise OSError(why or "it is a program of your own, and has no port (deploy.port)")
    try:
        return url, json.loads(openai.request(url + "/v1/models", key=key)[1])["data"][0]["id"]
    except (ValueError, LookupError, TypeError):
        raise OSError("it is a program of your own, at %s, and has no /v1/models" % url) from None


def main(args: ChatArguments) -> None:
    """Send the completion of the server, or why there is none."""
    deployed = record.read(args["deployment"], args["host"]) or {}
    servers = deployed.get("instances", []) + deployed.get("routers", [])
    asked_for = [server for server in servers if server["name"] == args["server"]]
    if not asked_for:
        send({"problem": "it is not recorded on this host"})
        return
    key = openai.api_key(args["deployment"], args["host"])
    try:
        url, model = served_by(asked_for[0], key)
        body = {**args["parameters"], "model": model, "messages": args["messages"]}
        status, text = openai.request(url + "/v1/chat/completions", body, key, ANSWER_SECONDS)
    except OSError as error:
        send({"problem": "no answer: %s" % error})
        return
    if status != 200:
        words = text[:2000] or http.client.responses.get(status, "nothing more")
        send({"problem": "HTTP %d: %s" % (status, words)})
        return
    try:
        send({"answer": json.loads(text)})
    except ValueError:
        send({"problem": "HTTP 200, but not JSON: %s" % text[:2000]})
