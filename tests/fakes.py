"""Hosts that are functions: a fleet whose connections answer programs from a handler, without any network.

A handler takes (host, module, args), as `Program` sends them, and gives what the program on the host would do, one
after another: a dictionary is a message, bytes are raw standard output, `Stderr` is that, `Exit` an exit status (0 if
none comes), `None` a moment of silence, an exception a connection that breaks. A plain command has the module "" and
{"command", "stdin"} for its arguments.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flagscale_deploy.errors import ConnectError, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.messages.program import HostProgram
from flagscale_deploy.remote.wire import PREFIX
from flagscale_deploy.transport.base import Running, Source
from flagscale_deploy.transport.fleet import Connect, Fleet

SILENCE_SECONDS = 0.005


def untyped(name: str) -> HostProgram[Any, Any, Any]:
    """Return a host program by its name, to send it what the types of its messages don't allow."""
    return HostProgram[Any, Any, Any](name)


class Stderr(bytes):
    """What a program writes to standard error."""


class Exit(int):
    """How a program ends."""


Output = dict[str, Any] | bytes | Exit | Exception | None
Handler = Callable[[Host, str, dict[str, Any]], Iterable[Output]]


@dataclass(frozen=True)
class Call:
    """A program that was sent to a host."""

    host: str
    module: str
    args: Mapping[str, Any]


class FakeRunning:
    """A program on a host that is a function."""

    def __init__(self, host: Host, command: str, handler: Handler, calls: list[Call]) -> None:
        self._host, self._command, self._handler, self._calls = host, command, handler, calls
        self._sent = bytearray()
        self._outputs: Iterator[Output] | None = None
        self._code = 0
        self.module = ""
        self.closed = False
        self.input_ended = False
        self.last_sent = b""

    def send(self, data: bytes) -> None:
        self.last_sent = data
        self._sent += data
        length, _, program = bytes(self._sent).partition(b"\n")
        if self._outputs is None and length.isdigit() and len(program) >= int(length):
            library_size, args_size = map(int, re.findall(r"s\.read\((\d+)\)", first_line(program)))
            behind = program[int(length) :]
            if len(behind) >= library_size + args_size:
                module, args, _seconds = json.loads(behind[library_size : library_size + args_size])
                self._begin(module, args)

    def close_stdin(self) -> None:
        self.input_ended = True
        if self._outputs is None:
            self._begin("", {"command": self._command, "stdin": bytes(self._sent)})

    def read(self, timeout: float) -> tuple[Source, bytes] | None:
        if self._outputs is None and not self._sent:  # a plain command, whose standard input stays open
            self.close_stdin()
        assert self._outputs is not None, "the program was not sent"
        for output in self._outputs:
            if isinstance(output, Exception):
                raise output
            if isinstance(output, Exit):
                self._code = output
            elif isinstance(output, Stderr):
                return "stderr", bytes(output)
            elif output is None:
                time.sleep(min(timeout, SILENCE_SECONDS))
                return "stdout", b""
            else:
                return "stdout", output if isinstance(output, bytes) else PREFIX.encode() + json.dumps(
                    output
                ).encode() + b"\n"
        return None

    def exit_code(self, timeout: float) -> int | None:  # noqa: ARG002 (a function ends at once)
        return self._code

    def close(self) -> None:
        self.closed = True

    def _begin(self, module: str, args: dict[str, Any]) -> None:
        self.module = module
        self._calls.append(Call(self._host.name, module, args))
        self._outputs = iter(self._handler(self._host, module, args))


class FakeConnection:
    """A connection to a host that is a function."""

    def __init__(self, host: Host, handler: Handler, calls: list[Call], refused: ConnectError | None = None) -> None:
        self.host, self._handler, self._calls, self._refused = host, handler, calls, refused
        self.opened = 0
        self.closed = False
        self.running: list[FakeRunning] = []

    def open(self) -> None:
        self.opened += 1
        if self._refused is not None:
            raise self._refused

    def start(self, command: str) -> Running:
        self.running.append(FakeRunning(self.host, command, self._handler, self._calls))
        return self.running[-1]

    def close(self) -> None:
        self.closed = True


def connecting(
    handler: Handler,
    calls: list[Call],
    refused: Mapping[str, ConnectError] = MappingProxyType({}),
    made: dict[str, FakeConnection] | None = None,
) -> Connect:
    """Return what `Fleet` and `Options` take for `connect`; notes programs in `calls` and connections in `made`."""

    def connect(host: Host, timeout: float) -> FakeConnection:
        connection = FakeConnection(host, handler, calls, refused.get(host.name))
        if made is not None:
            made[host.name] = connection
        return connection

    return connect


class FakeFleet(Fleet):
    """A real Fleet over fake connections. `calls` has every program in the order of its sending."""

    def __init__(
        self,
        handler: Handler,
        hosts: Sequence[str | Host] = ("gpu01",),
        *,
        refused: Mapping[str, ConnectError] | None = None,
        forks: int = 64,
    ) -> None:
        self.calls: list[Call] = []
        self.connections: dict[str, FakeConnection] = {}
        connect = connecting(handler, self.calls, refused or {}, self.connections)
        named = [host if isinstance(host, Host) else Host(host, host) for host in hosts]
        super().__init__(named, forks=forks, connect=connect)

    def sent(self, module: str) -> list[Call]:
        """Return the programs of one module."""
        return [call for call in self.calls if call.module == module]


def silence_until(event: threading.Event, seconds: float = 60.0) -> Iterator[None]:
    """Silence that ends with an event. Fails where it doesn't come."""
    end = time.monotonic() + seconds
    while not event.is_set():
        if time.monotonic() > end:
            raise RemoteError("test", "the event did not come")
        yield None


def first_line(program: bytes) -> str:
    return program.split(b"\n", 1)[0].decode()
