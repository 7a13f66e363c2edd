"""The errors of the tool, with the exit status each one ends the command with.

DeployError                 1
├── InputError              2  bad input; no host was contacted
├── ConnectError            3  one host could not be reached, logged into or trusted
│   ├── UnreachableError
│   ├── AuthenticationError
│   └── HostKeyError
├── HostsFailedError        1  several hosts failed, every one named
│   └── HostsUnreachableError 3  and one or more of them could not be reached
├── RemoteError             1  a host was reached and something failed on it
├── CheckError              4  the check or the planner says no; nothing was started
├── NotReadyError           5  started, never became ready
├── LockedError             6  another run holds the deployment
├── LockLostError           6  ours was taken from us while we were at work
└── InterruptedByUser     130
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong, where it is, and what to do about it.

    `where` is a place that the user can go to: `qwen.yaml: deploy.models.vllm_model` or `gpu01`. `check` is the name
    of the check of `checks/registry.py` that it belongs to; faults of files have none. `host` is the host that it is
    about, where `where` is a place in a file.
    """

    where: str
    problem: str
    remedy: str = ""
    check: str = field(default="", compare=False)
    host: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}" + (f"\n    → {self.remedy}" if self.remedy else "")


class DeployError(Exception):
    """Anything the tool reports and exits for; `str()` of it is fit for the terminal."""

    exit_code = 1


class FaultsError(DeployError):
    """An error made of one or more faults, which are reported together."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    @classmethod
    def at(cls, where: str, problem: str, remedy: str = "") -> FaultsError:
        """The error of one fault."""
        return cls([Fault(where, problem, remedy)])


class InputError(FaultsError):
    """Files, options or overrides are wrong; no host was contacted."""

    exit_code = 2


class CheckError(FaultsError):
    """The hosts as they are cannot carry what is asked for; nothing was started."""

    exit_code = 4


class HostError(DeployError):
    """Something about one host. `host` is its inventory name."""

    def __init__(self, host: str, problem: str, remedy: str = "") -> None:
        self.host, self.problem, self.remedy = host, problem, remedy
        super().__init__(str(Fault(host, problem, remedy)))


class ConnectError(HostError):
    """The host could not be talked to."""

    exit_code = 3


class UnreachableError(ConnectError):
    """No answer: name resolution, routing, refused, or too slow."""


class AuthenticationError(ConnectError):
    """The host answered and did not let us in."""


class HostKeyError(ConnectError):
    """The host's key is unknown or differs from known_hosts."""


class RemoteError(HostError):
    """The host was reached and a program on it failed."""


class HostsFailedError(DeployError):
    """Something failed on several hosts; all of them are named."""

    def __init__(self, errors: Sequence[HostError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


class HostsUnreachableError(HostsFailedError):
    """One or more hosts could not be talked to; all that failed are named."""

    exit_code = 3


class NotReadyError(DeployError):
    """What was started never answered a completion."""

    exit_code = 5


class LockedError(HostError):
    """Another command holds the deployment's lock on its head."""

    exit_code = 6


class LockLostError(DeployError):
    """The deployment's lock is not ours any more: nothing further may be done to its hosts."""

    exit_code = 6


class InterruptedByUser(DeployError):
    """Ctrl-C or SIGTERM."""

    exit_code = 130
