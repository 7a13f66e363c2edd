"""Send a host program to a host's own Python, and read its messages.

The bundle (sources, compressed, and arguments) travels over standard input behind its lengths, so that no argument
stands in a process table and standard input stays open afterwards: its end tells the program that nobody listens any
more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from threading import Event
from types import TracebackType
from typing import Generic

from flagscale_deploy.errors import NoReplyError, RemoteError
from flagscale_deploy.remote.messages.program import Arguments, HostProgram, Order, Reply
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.support.shell import join
from flagscale_deploy.transport.base import Connection, Listening, exit_code
from flagscale_deploy.transport.bundle import bundle
from flagscale_deploy.transport.remote_notes import note_program
from flagscale_deploy.transport.replies import MARK, Replies, brief

READER = "import sys;sys.path.remove('');s=sys.stdin.buffer;exec(s.read(int(s.readline())))"
PYTHON_WORDS = ("-SE", "-c", READER)
"""What follows Python on the command line. Programs need nothing but the standard library: no site-packages with their
hooks, no PYTHONPATH, and no json.py that lies in the home directory."""
NOISE_KEPT = 200
EXIT_SECONDS = 15.0
"""How long a program may take from the end of its output to its exit status."""


def command(connection: Connection) -> str:
    """Return the command for the login shell: the host's Python, inside the host's container where it has one."""
    host = connection.host
    inside = ["docker", "exec", "-i", host.container] if host.container else []
    return join([*inside, host.python, *PYTHON_WORDS])


class Program(Generic[Reply, Order]):
    """A program running on a host: iterate over its messages, or take raw bytes after one of them.

    Raises RemoteError when it fails, sends nothing in time, or ends without a message.
    """

    def __init__(
        self,
        connection: Connection,
        program: HostProgram[Arguments, Reply, Order],
        args: Arguments,
        *,
        timeout: float,
        cancelled: Event | None = None,
        bounded: bool = True,
    ) -> None:
        self._host, self._module = connection.host.name, program.name
        self._deadline = Deadline(timeout)
        self._replies = Replies(self._host, program)
        self._buffer = bytearray()
        self._searched = 0
        self._stderr = bytearray()
        self._noise = bytearray()
        self._heard = False
        note_program(self._host, program.name, args)
        self._running = connection.start(command(connection))
        self._cancelled = cancelled
        self._listening = Listening(self._running, self._host, self._deadline, cancelled)
        self._running.send(bundle(program.name, args, timeout if bounded else None))

    def __enter__(self) -> Program[Reply, Order]:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its standard input and output, which ends it; harmless when closed."""
        self._running.close()

    def end_input(self) -> None:
        """End its standard input: nobody listens any more."""
        self._running.close_stdin()

    def send(self, message: Order) -> None:
        """Send an order to the running program: a line of JSON on its standard input."""
        self._running.send(json.dumps(message).encode() + b"\n")

    def allow(self, seconds: float) -> None:
        """Allow so many seconds from now for the next message."""
        self._deadline = Deadline(seconds)
        self._listening.allow(self._deadline)

    def send_with(self, message: Order, data: bytes) -> None:
        """Send an order as `send` does, with bytes behind the line that it announces."""
        self._running.send(json.dumps(message).encode() + b"\n" + data)

    def hear(self) -> Reply:
        """Return its next message. Raises RemoteError as `messages` does, and if it ends without one."""
        for message in self.messages():
            return message
        raise NoReplyError(self._host, f"{self._module}: the host program ended without a reply")

    @property
    def noise(self) -> str:
        """Return the first 200 characters on standard output before the first message: what a login printed."""
        return bytes(self._noise).decode(errors="replace").strip()[:NOISE_KEPT]

    def messages(self) -> Iterator[Reply]:
        """Yield every message as it comes, until the program ends or the caller stops asking."""
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._buffer)  # a long line is not searched again with every piece of it
                if not self._fill():
                    break
                continue
            self._searched = 0
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._listen(line)
            if (message := self._replies.read(line)) is not None:
                yield message
        self._ended()

    def last(self) -> Reply:
        """Return the last message, when it has ended."""
        last = None
        for message in self.messages():
            last = message
        if last is None:
            raise NoReplyError(self._host, f"{self._module}: the host program ended without a reply")
        return last

    def take(self, count: int) -> Iterator[bytes]:
        """Yield the next `count` bytes behind the last message, as they are. RemoteError if there are fewer."""
        self._searched = 0
        while count:
            if not self._buffer:
                if not self._fill():
                    self._ended()
                    raise RemoteError(self._host, f"{self._module}: the program ended in the middle of what it sent")
                continue
            chunk = bytes(self._buffer[:count])
            del self._buffer[:count]
            count -= len(chunk)
            yield chunk

    def _listen(self, line: bytes) -> None:
        before, prefix, _ = line.partition(MARK)
        if not self._heard and len(self._noise) < 4 * NOISE_KEPT:  # of UTF-8's longest characters
            self._noise += before if prefix else line + b"\n"
        self._heard = self._heard or bool(prefix)

    def _fill(self) -> bool:
        chunk = self._listening.next()
        if chunk is None:
            return False
        source, data = chunk
        if source == "stderr":
            self._stderr = (self._stderr + data)[-8192:]
        else:
            self._buffer += data
        self._replies.count(len(data), 0 if b"\n" in data else len(self._buffer))
        return True

    def _ended(self) -> None:
        seconds = min(self._deadline.remaining + 1, EXIT_SECONDS)
        code = exit_code(self._running, self._host, seconds, self._cancelled)
        if code:
            raise RemoteError(self._host, *_why(self._module, code, bytes(self._stderr or self._noise)))


def at_once(acts: Iterable[Callable[[], object]]) -> None:
    """Do what may wait for a host, on all hosts at the same time: a jump host that takes nothing holds each up."""
    threads = []
    for act in acts:
        thread = threading.Thread(target=act, name="ending", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads at present
            act()
        else:
            threads.append(thread)
    for thread in threads:
        thread.join()


def call(
    connection: Connection,
    program: HostProgram[Arguments, Reply, Order],
    args: Arguments,
    *,
    timeout: float,
    cancelled: Event | None = None,
) -> Reply:
    """Run a program to its end and return its last message. Raises RemoteError, ConnectError."""
    with Program(connection, program, args, timeout=timeout, cancelled=cancelled) as running:
        return running.last()


def _why(module: str, code: int, stderr: bytes) -> tuple[str, str]:
    lines = stderr.decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else ""
    if code in (126, 127):
        return f"no usable Python ({brief(last) or f'exit status {code}'})", (
            "install python3 (3.8 or later) on the host, or name it with `python:` (ansible_python_interpreter)"
        )
    if code == -14 or code == 142:
        return f"{module}: it did not end in time", "look at the host's load and disks"
    return f"{module}: exit status {code}" + (f": {brief(last)}" if last else ""), ""
