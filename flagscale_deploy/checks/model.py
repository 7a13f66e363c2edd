"""What checks are made of: what was seen, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.remote.network_test.connect import ConnectFailure

State = Literal["failed", "warning", "passed", "skipped"]
"""failed: it would break the deployment. warning: it costs time or makes trouble later; it stops nothing."""

LinkFailure = ConnectFailure | Literal["not-tried"]
"""Why there is no connection; "not-tried" where the source could not listen, or could not be talked to."""


@dataclass(frozen=True)
class Link:
    """A TCP connection that was tried between two hosts over the data network.

    `use` says in words what the port is for ("Ray's port", "data"); an `ephemeral` one was chosen by the kernel.
    `failure` is None where the connection was made and the right listener replied, and `seconds` how long that took;
    `problem` is the failure in words. `bandwidth` (bytes a second) and `latency` (seconds, a round trip) where they
    were measured.
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
    """What the vLLM of a driver host says of an instance's command line.

    `broken` is why its parser could not be asked (vLLM can't be imported, say); `error` what it complains of; `unknown`
    the flags that it doesn't know, without dashes; `known` the ones it has.
    """

    error: str = ""
    unknown: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    broken: str = ""


@dataclass(frozen=True)
class Scene:
    """Everything that was seen. `plan` is None without a configuration, and where none could be made.

    `faults` are the planner's, also beside a plan (`planner.draft`); `links` is None where the network was not tried
    (with a plan it is, without one where measurements are asked for),
    `parsed` (by instance name) likewise.
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
        """Of the hosts that answered, in the inventory's order."""
        return {name: each.facts for name, each in self.observations.items() if each.facts is not None}

    @property
    def working(self) -> dict[str, Facts]:
        """Facts of the hosts that the plan has something to do for; without a plan, of all."""
        names = self.plan.working if self.plan is not None else self.observations
        return {name: facts for name, facts in self.facts.items() if name in names}

    @property
    def silent(self) -> tuple[str, ...]:
        """The hosts that did not answer. A plan beside them takes them for what the inventory says, or for like the
        others."""
        return tuple(name for name, each in self.observations.items() if each.facts is None)


@dataclass(frozen=True)
class Verdict:
    """What a check says of a host ("" where it is about all of them), with what it found and what it expected."""

    check: str
    state: State
    host: str = ""
    found: str = ""
    expected: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Finding:
    """What a check has to complain of, or to say: its verdict without the check's name. `host` "" is all hosts."""

    host: str
    found: str
    expected: str = ""
    remedy: str = ""
    state: State = "failed"


@dataclass(frozen=True)
class Check:
    """A check: a pure function from what was seen to its findings. Where it looked, and has no complaint, it passed.

    `unless` says why there is nothing to look at, so that the check is skipped; "" where there is something. A check
    that says what it found where all is well has `blind`: why it says nothing at all. Of others `looks_at` names the
    hosts. `skippable` is False where there would be no plan without it. `state` is what it says at worst.
    """

    name: str
    group: str
    look: Callable[[Scene], Iterable[Finding]]
    expected: str
    unless: Callable[[Scene], str] = field(default=lambda _scene: "")
    state: State = "failed"
    skippable: bool = True
    blind: str = ""
    looks_at: Callable[[Scene], Collection[str]] = field(default=lambda scene: scene.facts)

    @property
    def description(self) -> str:
        """The first paragraph of the function's docstring, on one line."""
        return " ".join((self.look.__doc__ or "").split("\n\n")[0].split())
