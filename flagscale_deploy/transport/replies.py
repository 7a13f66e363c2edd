"""Read what a host program sends, and believe none of it: every reply is held against its type and its limits."""

from __future__ import annotations

import json
import time
import typing
from functools import cache
from math import isfinite
from typing import Any, Generic, NoReturn

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from flagscale_deploy.errors import RemoteError
from flagscale_deploy.remote.messages.program import Arguments, HostProgram, Order, Reply, TypedDict
from flagscale_deploy.remote.wire import PREFIX

MARK = PREFIX.encode()
MESSAGES_AT_ONCE = 8
"""How many of its longest messages a program may send at once; see HostProgram."""
MESSAGES_PER_SECOND = 20
"""How many more messages a program may send for each second that it runs."""
DIGITS = 19
"""No number of a host's is longer: 2^63 nanoseconds are 292 years."""
DEEPEST = 64
"""How deep a reply may be nested: a model's config.json is part of one."""
MAY_BE_NEGATIVE = ("exit_code", "exit_status", "mtime_ns", "locked_memory", "open_files")
"""Keys of whole numbers below zero; all others are counts, sizes, ports and the like."""
SHOWN = 300
"""How many characters of a text that a host made up an error shows."""
REPORT = "check what `python3` runs on the host; if it is Python, please report a bug"


class ProgramError(TypedDict):
    """What a program sends that cannot go on; see `transport/bundle.py`."""

    error: str
    traceback: str


class Replies(Generic[Reply]):
    """The messages of one program on one host.

    Raises RemoteError for a message that is not as `remote/messages/` has it, and for a program that sends too much.
    """

    def __init__(self, host: str, program: HostProgram[Arguments, Reply, Order]) -> None:
        self._host, self._name = host, program.name
        self._validator = _validator(program)
        self._messages, self._message_bytes = program.messages, program.message_bytes
        self._rate = program.bytes_per_second
        self._bytes, self._lines, self._began = 0, 0, time.monotonic()
        self._has_replied = False

    def count(self, taken: int, waiting: int) -> None:
        """Count bytes that have come, of which so many wait for the end of their line. Raises RemoteError."""
        self._bytes += taken
        if waiting > self._message_bytes:
            self._refuse(f"a line of more than {self._message_bytes >> 10} KiB")
        if self._rate is None:
            return
        allowed = MESSAGES_AT_ONCE * self._message_bytes + self._rate * (time.monotonic() - self._began)
        if self._bytes > allowed:
            self._refuse(f"sent more than {int(allowed) >> 10} KiB")

    def read(self, line: bytes) -> Reply | None:
        """Return the message in a line of output, None where it holds none. Raises what the program reports, too.

        Before the first message, what is no JSON behind a message's mark may be a login's.
        """
        at = line.find(MARK)
        if at < 0:
            return None
        self._lines += 1
        allowed = self._messages + MESSAGES_PER_SECOND * (time.monotonic() - self._began)
        if self._rate is not None and self._lines > allowed:
            self._refuse(f"sent more than {int(allowed)} messages")
        try:
            content = _DECODER.decode(line[at + len(MARK) :].decode(errors="replace"))
            if b"\\ud" in line or b"\\uD" in line:  # half a surrogate pair, of a file name say, cannot be written
                content = json.loads(json.dumps(content, ensure_ascii=False).encode(errors="replace"))
            if not _is_shallow(content):
                self._refuse(f"a reply that is nested more than {DEEPEST} levels deep")
            if isinstance(content, dict) and "traceback" in content:
                failure = _FAILURE.validate_python(content, strict=True)
                raise RemoteError(self._host, f"{self._name}: {brief(failure['error'])}")
            reply: Reply = self._validator.validate_python(content, strict=True)
            self._has_replied = True
            return reply
        except ValidationError as wrong:
            self._refuse(f"malformed reply from the host program ({_first(wrong)})")
        except (ValueError, RecursionError) as wrong:
            if isinstance(wrong, json.JSONDecodeError) and not self._has_replied:
                return None
            self._refuse(f"malformed reply from the host program ({brief(str(wrong))})")

    def _refuse(self, problem: str) -> NoReturn:
        raise RemoteError(self._host, f"{self._name}: {problem}", REPORT)


def _is_shallow(content: object) -> bool:
    """Return whether no value is nested deeper than DEEPEST."""
    level = [content]
    for _ in range(DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return True
    return False


def brief(text: str) -> str:
    """Return a text that a host made up, cut to what an error shows."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def _first(wrong: ValidationError) -> str:
    """Return the first error in words: where in the reply, and what is wrong."""
    error = wrong.errors(include_url=False, include_input=False, include_context=False)[0]
    return brief(f"{'.'.join(map(str, error['loc'])) or 'reply'}: {error['msg']}")


@cache
def _validator(program: HostProgram[Arguments, Reply, Order]) -> SchemaValidator:
    """Return what validates a program's replies, made from the type that its descriptor was made with."""
    made = getattr(program, "__orig_class__", HostProgram[object, object, object])  # set where a descriptor is made
    return _schema(typing.get_args(made)[1])


def _schema(kind: Any) -> SchemaValidator:
    """Return a validator of a message's type, whose whole numbers are not negative unless they may be.

    It stops at the first wrong item of a list: a million of them take a gigabyte to be listed.
    """

    def strict(schema: Any, key: str = "") -> Any:
        if isinstance(schema, list):
            return [strict(part, key) for part in schema]
        if not isinstance(schema, dict):
            return schema
        fields = schema.get("type") == "typed-dict"
        changed = {name: strict(part, key) for name, part in schema.items() if not (fields and name == "fields")}
        if fields:
            changed["fields"] = {name: strict(part, name) for name, part in schema["fields"].items()}
        if schema.get("type") in ("list", "dict"):
            changed["fail_fast"] = True
        if schema.get("type") == "int" and key not in MAY_BE_NEGATIVE:
            changed["ge"] = 0
        return changed

    return SchemaValidator(strict(TypeAdapter(kind).core_schema))


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _number(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError("a number beyond all bounds")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_number, parse_constant=_refuse_constant)
_FAILURE = _schema(ProgramError)
