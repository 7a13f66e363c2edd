"""Send a chat completion to an instance on this host."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Callable, List, Optional, Tuple, cast

from flagscale_deploy.remote import wire
from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.engine import openai, program
from flagscale_deploy.remote.engine.client import Client
from flagscale_deploy.remote.system import json_files
from flagscale_deploy.remote.wire import cut

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
CHUNK = {"choices": [{"delta": {"content": (str, NONE)}, "finish_reason": (str, NONE)}]}
"""What a chunk of a streamed completion has to be."""
LONGEST_CHUNK = 1 << 20
PIECE_SECONDS = 0.1
"""Text is sent at most so often."""
PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Chunks:
    """The text of a streamed completion, sent in pieces: server-sent events with a chunk of JSON in each."""

    def __init__(self) -> None:
        self._rest = b""
        self._words: List[str] = []
        self._sent_at = 0.0
        self._finish: Optional[str] = None
        self._came = False

    def take(self, data: bytes) -> None:
        """Take the next bytes of the reply. Raises ValueError where they are no chunks, OSError if nobody listens."""
        if wire.input_ended():
            raise OSError("interrupted")
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_CHUNK:
            raise ValueError("a chunk of more than %d MiB" % (LONGEST_CHUNK >> 20))
        for line in lines:
            if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                self._add(line[5:].decode("utf-8", "replace"))
        if time.monotonic() > self._sent_at + PIECE_SECONDS:
            self._send()

    def end(self) -> ChatReply:
        """Send the rest of the text; return the last message."""
        self._send()
        if not self._came:
            return {"problem": "HTTP 200, but no chunks of a chat completion"}
        return {"answer": {"choices": [{"finish_reason": self._finish, "message": {"role": "assistant"}}]}}

    def _add(self, text: str) -> None:
        chunk = json_files.parse_object(text)
        problem = json_files.mismatch(chunk, CHUNK)
        if problem or "choices" not in chunk:
            raise ValueError("not a chunk of a chat completion (%s): %s" % (problem or "no choices", cut(text, 2000)))
        for choice in chunk["choices"][:1]:
            self._came = True
            self._words.append(choice.get("delta", {}).get("content") or "")
            self._finish = choice.get("finish_reason") or self._finish

    def _send(self) -> None:
        text = "".join(self._words)
        if text:
            send({"piece": text})
            self._words, self._sent_at = [], time.monotonic()


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
        chunks = Chunks() if args.get("stream") else None
        if chunks:
            body["stream"] = True
        take = chunks.take if chunks else None
        status, text = client.request(
            url + "/v1/chat/completions", body, private=True, timeout=ANSWER_SECONDS, take=take
        )
    except (OSError, ValueError) as error:
        send({"problem": "no answer: %s" % error})
        return
    if status != 200:
        words = cut(text, 2000) or PHRASES.get(status, "nothing more")
        send({"problem": "HTTP %d: %s" % (status, words)})
        return
    if chunks:
        send(chunks.end())
        return
    try:
        answer = openai.parse(text, "choices", COMPLETION)
        if not all("message" in choice for choice in answer["choices"]):
            raise ValueError("a choice has no message")
        send({"answer": cast("ChatCompletion", openai.keep(answer, KEPT))})
    except ValueError as error:
        send({"problem": "HTTP 200, but not a chat completion (%s): %s" % (error, cut(text, 2000))})
