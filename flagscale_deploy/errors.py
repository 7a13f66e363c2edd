"""The errors of the tool, with the exit status of each.

DeployError                 1
├── InputError              2  wrong files or options; no host was contacted
├── ConnectError            3  a host could not be reached, logged into or trusted
│   ├── UnreachableError
│   │   └── TcpError        3  its SSH port takes no connection
│   ├── AuthenticationError
│   └── HostKeyError
├── HostsFailedError        1  several hosts failed; each is named
│   └── HostsUnreachableError 3  at least one of them could not be reached
├── RemoteError             1  something failed on a host that was reached
│   ├── UnforeseenError     1  an error of this tool in its work on one host
│   └── NoReplyError        1  a command succeeded, but our program sent nothing
├── CheckError              4  a check or the planner refused; nothing was started
│   └── BusyError           7  others have the GPUs or ports; nothing was started
├── NotReadyError           5  started, but never became ready
├── LockedError             6  another command holds the deployment's lock
├── LockLostError           6  our lock was lost during the command
└── InterruptedByUser     130
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from flagscale_deploy.text import one_line

MOST_FAULTS = 100
"""What is said of one file, or one configuration: who has more wrong does not read them all."""


@dataclass(frozen=True, order=True)
class Fault:
    """A problem: where it is, what is wrong, and what to do.

    `where` is a place that the user can find: `qwen.yaml: deploy.models.vllm_model` or `gpu01`. `check` is the name of
    its check in `checks/registry.py`; faults of files have none. `host` is the host concerned, where `where` is a
    place in a file. `taken_port` is the port concerned, where another process of that host listens on it. All texts
    are on one line, whatever they were made of.
    """

    where: str
    problem: str
    remedy: str = ""
    check: str = field(default="", compare=False)
    host: str = field(default="", compare=False)
    taken_port: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("where", "problem", "remedy"):
            object.__setattr__(self, name, one_line(getattr(self, name)))

    @property
    def lines(self) -> tuple[str, ...]:
        """Return the lines for the terminal: the problem, and what to do."""
        return (f"{self.where}: {self.problem}", *((f"    → {self.remedy}",) if self.remedy else ()))

    def __str__(self) -> str:
        return "\n".join(self.lines)


def at_most(faults: Iterable[Fault], where: str, more: int = 0) -> list[Fault]:
    """Return each fault once; of more than MOST_FAULTS the first, and last how many there are besides."""
    once = list(dict.fromkeys(faults))
    more += len(once[MOST_FAULTS:])
    rest = [Fault(where, f"{more:,} more are not listed", "correct these first")] if more else []
    return once[:MOST_FAULTS] + rest


class DeployError(Exception):
    """Any error that the tool reports before it exits; `lines`, and `str()` of it, are the text for the terminal."""

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(map(one_line, lines)) or (type(self).__name__,)
        super().__init__("\n".join(self.lines))


class FaultsError(DeployError):
    """One or more faults, which are reported together."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(*(line for fault in self.faults for line in fault.lines))

    @classmethod
    def at(cls, where: str, problem: str, remedy: str = "") -> FaultsError:
        """Return the error of one fault."""
        return cls([Fault(where, problem, remedy)])


class InputError(FaultsError):
    """Files, options or overrides are wrong; no host was contacted."""

    exit_code = 2


class CheckError(FaultsError):
    """The hosts cannot run what is configured; nothing was started."""

    exit_code = 4


class BusyError(CheckError):
    """The hosts could run it, but others have the GPUs or ports that it needs; nothing was started."""

    exit_code = 7


class HostError(DeployError):
    """An error on one host. `host` is its inventory name; `quoted` are lines of the host's logs, shown with its name.

    `problem` and `remedy` are on one line each, whatever the host sent.
    """

    def __init__(self, host: str, problem: str, remedy: str = "", quoted: Sequence[str] = ()) -> None:
        first, *rest = (fault := Fault(host, problem, remedy)).lines
        self.host, self.problem, self.remedy = host, fault.problem, fault.remedy
        self.quoted = tuple(map(one_line, quoted))
        super().__init__(first, *(f"    {host} | {line}" for line in self.quoted), *rest)


class ConnectError(HostError):
    """No connection to the host was possible."""

    exit_code = 3


class UnreachableError(ConnectError):
    """The host did not answer: name resolution, routing, connection refused, or timeout."""


class TcpError(UnreachableError):
    """The host's SSH port takes no TCP connection: name resolution, routing, refused or dropped."""


class AuthenticationError(ConnectError):
    """The host refused the login."""


class HostKeyError(ConnectError):
    """The host's key is unknown or differs from known_hosts."""


class RemoteError(HostError):
    """A program failed on a host that was reached."""


class UnforeseenError(RemoteError):
    """An error of this tool in its work on one host; what was raised is its cause."""


class NoReplyError(RemoteError):
    """A command ended with exit status 0, and the program that it should have run sent no message."""


class HostsFailedError(DeployError):
    """Several hosts failed; all of them are named."""

    def __init__(self, errors: Sequence[HostError]) -> None:
        self.errors = tuple(errors)
        super().__init__(*(line for error in self.errors for line in error.lines))


class HostsUnreachableError(HostsFailedError):
    """Several hosts failed, and at least one could not be reached; all of them are named."""

    exit_code = 3


class NotReadyError(DeployError):
    """The deployment was started, but never answered a completion."""

    exit_code = 5


class LockedError(HostError):
    """Another command holds the deployment's lock on its head."""

    exit_code = 6


class LockLostError(DeployError):
    """The deployment's lock was lost: nothing further may be changed on its hosts."""

    exit_code = 6


class InterruptedByUser(DeployError):
    """The command was interrupted by Ctrl-C or SIGTERM."""

    exit_code = 130


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised for, what that was raised for, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
