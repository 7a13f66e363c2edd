"""Send a chat completion to an instance on this host."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Callable, Tuple, cast

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.engine import openai, program
from flagscale_deploy.remote.engine.client import Client

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.record import RecordedServer
    from flagscale_deploy.remote.messages.status import ChatArguments, ChatCompletion, ChatReply

send: Callable[[ChatReply], None] = wire.send

ANSWER_SECONDS = 590.0
MODELS = {"data": [{"id": str}]}
NONE = type(None)
COMPLETION = {"choices": [{"message": {"content": (str, NONE)}}]}
"""What a chat completion has to be."""
KEPT = {
    "id": str,
    "object": str,
    "created": int,
    "model": str,
    "choices": [{"index": int, "finish_reason": (str, NONE), "message": {"role": str, "content": (str, NONE)}}],
    "usage": {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int},
}
"""What of it is handed on."""
PHRASES = {status.value: status.phrase for status in HTTPStatus}


def served_by(server: RecordedServer, client: Client) -> Tuple[str, str]:
    """Return URL and model of a server.

    A program of the user's own is asked for its model, if it speaks the OpenAI API and serves on this host.
    """
    if server.get("engine") != "program":
        return server["local_url"], server["served_name"]
    url, why = program.answers(client, server["addresses"])
    if url is None:
        raise OSError(why or "it is a program of your own, and has no port (deploy.port)")
    try:
        reply = client.request(url + "/v1/models", private=True)[1]
        return url, openai.parse(reply, "data", MODELS)["data"][0]["id"]
    except (ValueError, LookupError):
        raise OSError("it is a program of your own, at %s, and has no /v1/models" % url) from None


def main(args: ChatArguments) -> None:
    """Send the completion of the server, or why there is none."""
    deployed = record.read(args["deployment"], args["host"]) or {}
    servers = deployed.get("instances", []) + deployed.get("routers", [])
    asked_for = [server for server in servers if server["name"] == args["server"]]
    if not asked_for:
        send({"problem": "it is not recorded on this host"})
        return
    client = openai.client(args["deployment"], args["host"], program=asked_for[0].get("engine") == "program")
    try:
        url, model = served_by(asked_for[0], client)
        body = {**args["parameters"], "model": model, "messages": args["messages"]}
        status, text = client.request(url + "/v1/chat/completions", body, private=True, timeout=ANSWER_SECONDS)
    except OSError as error:
        send({"problem": "no answer: %s" % error})
        return
    if status != 200:
        words = text[:2000] or PHRASES.get(status, "nothing more")
        send({"problem": "HTTP %d: %s" % (status, words)})
        return
    try:
        answer = openai.parse(text, "choices", COMPLETION)
        if not all("message" in choice for choice in answer["choices"]):
            raise ValueError("a choice has no message")
        send({"answer": cast("ChatCompletion", openai.keep(answer, KEPT))})
    except ValueError as error:
        send({"problem": "HTTP 200, but not a chat completion (%s): %s" % (error, text[:2000])})
