"""Every message of every host program is held against its type, its size and its rate before anything is made of it.

`FSD_FAULTS=all` tries 2,000 mutations of each program's replies, as `make faults` does; else 200.
"""

from __future__ import annotations

import json
import os
import random
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union

import pytest
from typing_extensions import is_typeddict

from flagscale_deploy.errors import RemoteError
from flagscale_deploy.remote.messages.program import HostProgram
from flagscale_deploy.remote.wire import PREFIX
from flagscale_deploy.transport.replies import MESSAGES_AT_ONCE, SHOWN, Replies
from tests.unit.api.mutations import mutated
from tests.unit.test_host_programs import DESCRIPTORS

MUTATIONS = 2000 if os.environ.get("FSD_FAULTS") == "all" else 200


def reply_type(program: HostProgram[Any, Any, Any]) -> Any:
    return typing.get_args(typing.cast(Any, program).__orig_class__)[1]


def samples(kind: Any, depth: int = 0) -> Iterator[Any]:
    """Yield values of a type: with every key, an item in every list, and each member of a union."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if is_typeddict(kind):
        yield {
            key: next(samples(of, depth + 1))
            for key, of in typing.get_type_hints(kind).items()
            if depth < 6 or key in kind.__required_keys__
        }
    elif origin in (Union, types.UnionType):
        for member in inner:
            if member is not types.NoneType:
                yield from samples(member, depth)
    elif origin is Literal:
        yield from inner
    elif origin is list:
        yield [next(samples(inner[0], depth))]
    elif origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        yield {"k": next(samples(inner[1], depth))}
    else:
        yield {str: "x", int: 1, float: 0.5, bool: True, object: "any"}[kind]


def fits(kind: Any, value: Any) -> bool:
    """Return whether a value is of a type, read in another way than the product does."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if is_typeddict(kind):
        hints = typing.get_type_hints(kind)
        return (
            isinstance(value, dict)
            and kind.__required_keys__ <= value.keys()
            and all(fits(hints[key], item) for key, item in value.items() if key in hints)
        )
    if origin in (Union, types.UnionType):
        return any(fits(member, value) for member in inner)
    if origin is Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(fits(inner[0], item) for item in value)
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return isinstance(value, dict) and all(fits(inner[1], item) for item in value.values())
    if kind is object:
        return True
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**20
    return isinstance(value, types.NoneType if kind is None else kind)


def read(program: HostProgram[Any, Any, Any], message: object) -> Any:
    line = PREFIX + json.dumps(message)
    reply = Replies("gpu01", program).read(line.encode(errors="replace"))
    if reply is None:
        raise RemoteError("gpu01", f"{program.name}: malformed reply: taken for what a login prints")
    return reply


def read_or_error(program: HostProgram[Any, Any, Any], message: object) -> Any:
    try:
        return read(program, message)
    except RemoteError as error:
        return error


@pytest.mark.parametrize("program", DESCRIPTORS.values(), ids=DESCRIPTORS)
def test_what_is_not_of_a_replys_type_is_the_hosts_error(program: HostProgram[Any, Any, Any]) -> None:
    kind = reply_type(program)
    refused = 0
    for sample in samples(kind):
        assert read(program, sample) == sample
        for number in range(MUTATIONS):
            message = mutated(random.Random(f"{program.name} {number}"), sample)
            reply = read_or_error(program, message)
            if isinstance(reply, RemoteError):
                refused += 1
                assert str(reply).startswith(f"gpu01: {program.name}: malformed reply"), message
                assert len(str(reply)) < SHOWN + 300
            else:
                assert fits(kind, reply), message
    assert refused > MUTATIONS / 10


@pytest.mark.parametrize("program", DESCRIPTORS.values(), ids=DESCRIPTORS)
def test_no_program_may_send_without_end(program: HostProgram[Any, Any, Any]) -> None:
    assert program.message_bytes <= 16 << 20
    with pytest.raises(RemoteError, match=r"a line of more than \d+ KiB"):
        Replies("gpu01", program).count(1, program.message_bytes + 1)
    replies = Replies("gpu01", program)
    replies.count(MESSAGES_AT_ONCE * program.message_bytes, 0)
    if program.bytes_per_second is not None:
        with pytest.raises(RemoteError, match=r"sent more than \d+ KiB"):
            replies.count(2 * program.bytes_per_second + program.message_bytes, 0)


def test_a_program_that_sends_small_messages_without_end_is_not_listened_to() -> None:
    replies = Replies("gpu01", DESCRIPTORS["stop"])
    line = (PREFIX + json.dumps({"event": "killed", "count": 1})).encode()
    for _ in range(DESCRIPTORS["stop"].messages):
        replies.read(line)
    with pytest.raises(RemoteError, match=r"gpu01: stop: sent more than \d+ messages"):
        replies.read(line)


READERS = {"archive", "follow", "push_host", "push_source"}
"""Programs whose messages are what a command is there to read, and no more than it wants; push_host confirms chunks."""


def test_all_but_what_is_there_to_be_read_has_a_rate() -> None:
    assert {program.name for program in DESCRIPTORS.values() if program.bytes_per_second is None} == READERS


NO_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 20, "-" + "9" * 5000, "[" * 100_000,
              '{"nodes": {"a": NaN}}', '{"pending": 1e400}']  # fmt: skip
NO_JSON = ["{", "", "\\", '"\\ud800', "nul", "1 2", '{"a": 1}{', "\x00"]


@pytest.mark.parametrize("text", NO_NUMBERS + NO_JSON)
def test_what_is_no_json_or_no_number_is_refused(text: str) -> None:
    replies = Replies("gpu01", DESCRIPTORS["ray_nodes"])
    assert replies.read((PREFIX + "{}").encode()) == {}
    with pytest.raises(RemoteError, match="malformed reply"):
        replies.read((PREFIX + text).encode())


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_a_first_reply_with_a_number_beyond_all_bounds_is_refused_at_once(text: str) -> None:
    with pytest.raises(RemoteError, match="malformed reply"):
        Replies("gpu01", DESCRIPTORS["ray_nodes"]).read((PREFIX + text).encode())


@pytest.mark.parametrize("text", NO_JSON)
def test_what_is_no_json_before_the_first_reply_is_what_a_login_prints(text: str) -> None:
    assert Replies("gpu01", DESCRIPTORS["ray_nodes"]).read((PREFIX + text).encode()) is None


def test_an_answer_of_the_longest_kind_costs_little_memory() -> None:
    """In a process of its own, whose memory nobody else has used."""
    import subprocess

    code = """
import resource
from flagscale_deploy.errors import RemoteError
from flagscale_deploy.remote.messages.probe import PROBE
from flagscale_deploy.transport.replies import MARK, Replies
replies = Replies("gpu01", PROBE)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    replies.read(MARK + b'{"models": [' + b"[]," * (PROBE.message_bytes // 3) + b"[]]}")
except RemoteError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 256 << 10
