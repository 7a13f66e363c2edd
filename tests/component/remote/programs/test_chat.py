"""What `chat` reports of replies that are no chat completion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.component.remote.living import Home, messages
from tests.component.remote.stand_in import reply, stand_in

ANSWER = '{"choices": [{"message": {"content": %s}}], "usage": {"completion_tokens": %s}}'


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        ("503 -", "", "HTTP 503: Service Unavailable"),
        ("503 -", "No available workers", "HTTP 503: No available workers"),
        ("400 -", '{"error": "too long"}', 'HTTP 400: {"error": "too long"}'),
        ("200 -", "<html>", "Expecting value: line 1 column 1 (char 0)"),
        ("200 -", "[]", "expected an object, found list"),
        ("200 -", '{"choices": {"0": 1}}', "choices: expected list, found dict"),
        ("200 -", '{"choices": [7]}', "choices.0: expected dict, found int"),
        ("200 -", '{"usage": {}}', "it has no choices"),
        ("200 -", '{"choices": [{}]}', "a choice has no message"),
        ("200 -", ANSWER % ("[1]", 1), "choices.0.message.content: expected str, found list"),
        ("200 -", ANSWER % ('"a"', "9" * 5000), "a number of 5000 digits"),
        ("200 -", ANSWER % ('"a"', "[" * 20_000 + "]" * 20_000), "it is nested too deeply"),
    ],
)
def test_a_reply_that_is_no_completion_is_reported_with_its_status(
    home: Home, tmp_path: Path, status: str, body: str, problem: str
) -> None:
    with stand_in(tmp_path, f"{home.deployment}/r1", anything=reply(body, status)) as server:
        home.record(instances=[{"name": "m/0", "driver": home.host, "served_name": "m", "local_url": server.url}])
        (message,) = home.run("chat", server="m/0", messages=[], parameters={})
    if status.startswith("200"):
        shown = body if len(body) <= 2000 else body[:2000] + "…"
        problem = f"HTTP 200, but not a chat completion ({problem}): {shown}"
    assert message == {"problem": problem}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_not_handed_on(home: Home, tmp_path: Path, number: str) -> None:
    body = ANSWER % ('"a"', number)
    with stand_in(tmp_path, f"{home.deployment}/r1", anything=reply(body)) as server:
        home.record(instances=[{"name": "m/0", "driver": home.host, "served_name": "m", "local_url": server.url}])
        (message,) = home.run("chat", server="m/0", messages=[], parameters={})
    assert message["answer"]["usage"] == {}


def test_what_is_known_of_a_completion_is_handed_on(home: Home, tmp_path: Path) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    choice = {"index": 0, "finish_reason": 7, "message": message, "logprobs": None}
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": True}
    body = {"id": "chat-1", "model": "m", "created": 17, "choices": [choice], "usage": usage, "more": {"a": 1}}
    with stand_in(tmp_path, f"{home.deployment}/r1", anything=reply(body)) as server:
        home.record(instances=[{"name": "m/0", "driver": home.host, "served_name": "m", "local_url": server.url}])
        (sent,) = home.run("chat", server="m/0", messages=[], parameters={})
    assert sent["answer"] == {
        "id": "chat-1", "model": "m", "created": 17,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": None}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
    }  # fmt: skip


def chunk(content: object, **more: object) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': content}, **more}]})}\n\n"


def streamed(home: Home, folder: Path, body: str) -> tuple[str, dict[str, Any]]:
    """Return the text of all pieces, and the last message."""
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    raw = head + "".join(f"{len(part.encode()):x}\r\n{part}\r\n" for part in parts) + "0\r\n\r\n"
    with stand_in(folder, f"{home.deployment}/r1", anything=raw) as server:
        home.record(instances=[{"name": "m/0", "driver": home.host, "served_name": "m", "local_url": server.url}])
        with home.open("chat", server="m/0", messages=[], parameters={"max_tokens": 3}, stream=True) as program:
            assert program.stdout is not None
            *pieces, last = messages(program.stdout.read())  # its input stays open: somebody listens
        assert '"stream": true' in server.heard[0]
    return "".join(message["piece"] for message in pieces), last


def test_a_streamed_completion_comes_in_pieces(home: Home, tmp_path: Path) -> None:
    usage = 'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\n'
    body = chunk("") + ": a comment\n" + chunk("I am\n") + chunk("Qwen ü", finish_reason="stop") + usage
    text, last = streamed(home, tmp_path, body + "data: [DONE]\n\n")
    assert text == "I am\nQwen ü"
    assert last == {"answer": {"choices": [{"finish_reason": "stop", "message": {"role": "assistant"}}]}}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<html>", "HTTP 200, but no chunks of a chat completion"),
        ('data: {"error": "it broke"}\n\n', 'not a chunk of a chat completion (no choices):  {"error": "it broke"}'),
        (chunk(7), "choices.0.delta.content: expected str, found int"),
    ],
)
def test_a_stream_that_is_no_completion_is_reported(home: Home, tmp_path: Path, body: str, problem: str) -> None:
    text, last = streamed(home, tmp_path, chunk("well ") * (body[0] == "d") + body)
    assert text in ("", "well ")
    assert problem in last["problem"]
