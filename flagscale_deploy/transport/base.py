"""Define what every way to a host can do."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event
from typing import Literal, Protocol

from flagscale_deploy.errors import ConnectError, InterruptedByUser, RemoteError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.remote_notes import note_command

Source = Literal["stdout", "stderr"]
POLL_SECONDS = 0.25
LAST_WORDS_SECONDS = 1.0
END_SECONDS = 4.0
"""How long a command may take to end after its standard input has, in which it gets SIGKILL after 2 s."""
MAX_OUTPUT = 8 << 20
"""What is kept of each of a command's two outputs, in bytes: half of it is their beginning, half their end."""


@dataclass(frozen=True)
class Outcome:
    """A command that ended. A non-zero exit status is data, not an exception; `elapsed` in seconds.

    `cut`: how many bytes of its output were not kept; a line tells where they were.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    elapsed: float
    cut: int = 0


class Running(Protocol):
    """A command that is running on a host."""

    def send(self, data: bytes) -> None:
        """Write to its standard input, which stays open."""

    def close_stdin(self) -> None:
        """End its standard input."""

    def read(self, timeout: float) -> tuple[Source, bytes] | None:
        """Return the next output; b"" if none came within `timeout` seconds, None once both streams have ended."""

    def exit_code(self, timeout: float) -> int | None:
        """Wait for its exit status and return it, None if it is late. Raises ConnectError for a lost connection."""

    def close(self) -> None:
        """Close its standard input and output, which ends the programs that we send."""


class Connection(Protocol):
    """A way to one host, opened once and used for everything."""

    host: Host

    def open(self) -> None:
        """Connect and log in, if that has not been done. Raises ConnectError."""

    def start(self, command: str) -> Running:
        """Start a command. The text is for the login shell on the other side. Raises ConnectError."""

    def close(self) -> None:
        """Close it; harmless when closed."""


class LateError(RemoteError):
    """A command took longer than its time limit. `ended`: it was ended on the host, as far as it was seen."""

    ended = False


class Interruptible:
    """A connection that gives up opening when `cancelled` is set, by whoever owns it."""

    def __init__(self) -> None:
        self.cancelled = Event()


class Listening:
    """The output of a command as it comes, within a deadline, and until it is cancelled."""

    def __init__(self, running: Running, host: str, deadline: Deadline, cancelled: Event | None) -> None:
        self._running, self._host, self._deadline, self._cancelled = running, host, deadline, cancelled
        self._last_words: Deadline | None = None

    def allow(self, deadline: Deadline) -> None:
        """Set another deadline."""
        self._deadline = deadline

    def next(self) -> tuple[Source, bytes] | None:
        """Return the next output, None at its end.

        Raises LateError past the deadline, also where output never ends; InterruptedByUser once it is cancelled, a
        moment later: output that has come by then is still returned.
        """
        while True:
            chunk = self._running.read(min(POLL_SECONDS, self._deadline.remaining + 0.01))
            if chunk is None:
                return None
            if self._is_over(idle=not chunk[1]):
                raise InterruptedByUser("interrupted")
            if self._deadline.expired:
                raise LateError(self._host, *self._late(talking=bool(chunk[1])))
            if chunk[1]:
                return chunk

    def _is_over(self, *, idle: bool) -> bool:
        if self._cancelled is None or not self._cancelled.is_set():
            return False
        self._last_words = self._last_words or Deadline(LAST_WORDS_SECONDS)
        return idle or self._last_words.expired

    def _late(self, *, talking: bool) -> tuple[str, str]:
        if talking:
            return f"it has not ended within {self._deadline.seconds:g} s", "its output does not end"
        return f"no answer within {self._deadline.seconds:g} s", "look at the host's load and disks"


def exit_code(running: Running, host: str, seconds: float, cancelled: Event | None) -> int:
    """Wait for the exit status of a command whose output has ended, which a host may never send.

    Raises RemoteError past the deadline, InterruptedByUser once it is cancelled.
    """
    deadline = Deadline(seconds)
    while True:
        code = running.exit_code(min(POLL_SECONDS, deadline.remaining))
        if code is not None:
            return code
        if cancelled is not None and cancelled.is_set():
            raise InterruptedByUser("interrupted")
        if deadline.expired:
            raise RemoteError(host, f"a command did not end within {seconds:g} s of its output")


class Ends:
    """The beginning and the end of bytes that come, in no more than three times `limit` bytes of memory."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._first, self._last = bytearray(), bytearray()
        self.cut = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        room = self._half - len(self._first)
        self._first += data[:room]
        self._last += data[room:]
        if len(self._last) > 2 * self._half:
            self._trim()

    def kept(self) -> bytes:
        """Return what was kept, with a line between the two ends that tells how much is missing, if anything is."""
        if len(self._last) > self._half:
            self._trim()
        mark = b"\n[flagscale-deploy: %d bytes cut]\n" % self.cut if self.cut else b""
        return bytes(self._first) + mark + bytes(self._last)

    def _trim(self) -> None:
        over = len(self._last) - self._half
        self.cut += over
        del self._last[:over]


def run(
    connection: Connection,
    command: str,
    *,
    stdin: bytes = b"",
    timeout: float,
    cancelled: Event | None = None,
    max_output: int = MAX_OUTPUT,
    hold_input: bool = False,
) -> Outcome:
    """Run a command to its end; of each output at most `max_output` bytes are kept.

    With `hold_input` its standard input ends only once the time is over or the caller is interrupted, which ends the
    command (`ending_with_input`). Raises LateError when it takes longer than `timeout` seconds, InterruptedByUser when
    `cancelled` gets set, ConnectError when the connection cannot be made or breaks.
    """
    deadline = Deadline(timeout)
    note_command(connection.host.name, command)
    running = connection.start(command)
    listening = Listening(running, connection.host.name, deadline, cancelled)
    output: dict[Source, Ends] = {"stdout": Ends(max_output), "stderr": Ends(max_output)}
    try:
        running.send(stdin)
        if not hold_input:
            running.close_stdin()
        while (chunk := listening.next()) is not None:
            output[chunk[0]].add(chunk[1])
        code = exit_code(running, connection.host.name, deadline.remaining + 1, cancelled)
    except (LateError, InterruptedByUser) as error:
        ended = hold_input and _ends(running)
        if isinstance(error, LateError):
            error.ended = ended
        raise
    finally:
        running.close()
    stdout, stderr = (output[source].kept() for source in ("stdout", "stderr"))
    return Outcome(code, stdout, stderr, deadline.elapsed, output["stdout"].cut + output["stderr"].cut)


def _ends(running: Running) -> bool:
    """End a command's standard input; return whether its output ends then, in time."""
    deadline = Deadline(END_SECONDS)
    try:
        running.close_stdin()
        while not deadline.expired:
            if running.read(min(POLL_SECONDS, deadline.remaining)) is None:
                return True
    except ConnectError:
        return False
    return False


_WATCHED = (
    "read -r _ _ _ _ group _ </proc/$$/stat; exec 3<&0; watch=; "
    'if [ "$group" = $$ ]; then '
    '(read -r _ <&3; trap "" TERM; kill -TERM 0; sleep 2; kill -KILL 0) >/dev/null 2>&1 & watch=$!; fi; '
    '"${2:-${SHELL:-/bin/sh}}" -c "$1" </dev/null 3<&-; code=$?; '
    '[ -z "$watch" ] || kill -KILL $watch 2>/dev/null; exit $code'
)
"""Shell on one line and without single quotes, which any login shell passes on. Every SSH server that makes a session
for a command, as OpenSSH does, gives it a process group of its own."""


def ending_with_input(text: str, program: str = "") -> list[str]:
    """Return the words of a command that runs shell text, until that or its standard input ends.

    Then its process group gets SIGTERM, and SIGKILL 2 s later. `program` is the shell, "" for that of the login.
    """
    return ["sh", "-c", _WATCHED, "sh", text, program]
