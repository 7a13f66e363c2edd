"""Define what checks take and return: the context of a check, findings and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.remote.messages.check import ConnectFailure

State = Literal["failed", "warning", "passed", "skipped"]
"""failed: it would break the deployment. warning: it costs time or causes trouble later, but never prevents a run."""

LinkFailure = ConnectFailure | Literal["not-tried"]
"""Why there is no connection; "not-tried" if the source could not listen, or could not be contacted."""


@dataclass(frozen=True)
class Link:
    """A TCP connection that was tried between two hosts over the data network.

    `use` says what the port is for ("Ray's port", "data"); an `ephemeral` one was chosen by the kernel. `failure` is
    None if the right listener replied; `seconds` is how long that took. `problem` describes the failure. `bandwidth`
    (bytes per second) and `latency` (seconds for a round trip) are set if measured.
    """

    source: str
    target: str
    address: str
    port: int
    use: str
    ephemeral: bool = False
    failure: LinkFailure | None = None
    problem: str = ""
    seconds: float = 0.0
    bandwidth: float | None = None
    latency: float | None = None


@dataclass(frozen=True)
class Parsed:
    """The result of parsing an instance's command line with the vLLM of its driver's host.

    `broken` says why the parser could not run (for example vLLM can't be imported); `error` is its complaint. `unknown`
    are the flags that it doesn't know, `known` those it has, without dashes.
    """

    error: str = ""
    unknown: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    broken: str = ""


@dataclass(frozen=True)
class Context:
    """Everything that checks look at. `plan` is None without a configuration, and where planning failed.

    `faults` are the planner's; there may be some beside a plan (`planner.draft`). `links` is None if the network was
    not tested; it is tested with a plan, or if measurements are asked for. `parsed` is by instance name, None if
    nothing was parsed.
    """

    inventory: Inventory
    spec: ServeSpec | None
    observations: Mapping[str, Observation]
    plan: Plan | None = None
    faults: tuple[Fault, ...] = ()
    links: tuple[Link, ...] | None = None
    parsed: Mapping[str, Parsed] | None = None

    @property
    def facts(self) -> dict[str, Facts]:
        """Return the facts of the hosts that answered the probe, in the inventory's order."""
        return {
            name: observation.facts for name, observation in self.observations.items() if observation.facts is not None
        }

    @property
    def working(self) -> dict[str, Facts]:
        """Return the facts of the hosts that run something in the plan; without a plan, of all hosts."""
        names = self.plan.working if self.plan is not None else self.observations
        return {name: facts for name, facts in self.facts.items() if name in names}

    @property
    def silent(self) -> tuple[str, ...]:
        """Return the hosts that did not answer; a plan assumes for them what the inventory says, or equal hosts."""
        return tuple(name for name, observation in self.observations.items() if observation.facts is None)


@dataclass(frozen=True)
class Verdict:
    """The result of a check on a host ("" if it is about all hosts), with what was found and what was expected."""

    check: str
    state: State
    host: str = ""
    found: str = ""
    expected: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Finding:
    """A problem, or a result worth showing: a verdict without the check's name. `host` "" means all hosts."""

    host: str
    found: str
    expected: str = ""
    remedy: str = ""
    state: State = "failed"


@dataclass(frozen=True)
class Check:
    """A check: a pure function from what was seen to findings. Without a complaint, it passed.

    `unless` returns why the check is skipped, "" if it isn't. A check that yields a finding also when all is well has
    `blind`: the reason to show if it yields none. For others, `looks_at` returns the hosts that were looked at.
    `skippable` is False if there is no plan without the check. `state` is the worst state of its findings.
    """

    name: str
    group: str
    look: Callable[[Context], Iterable[Finding]]
    expected: str
    unless: Callable[[Context], str] = field(default=lambda _context: "")
    state: State = "failed"
    skippable: bool = True
    blind: str = ""
    looks_at: Callable[[Context], Collection[str]] = field(default=lambda context: context.facts)

    @property
    def description(self) -> str:
        """Return the first paragraph of the function's docstring, on one line."""
        return " ".join((self.look.__doc__ or "").split("\n\n")[0].split())
