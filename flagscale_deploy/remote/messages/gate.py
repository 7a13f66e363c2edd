"""What is asked of a running gate on its host, `route_gate`, and of the keys that a run has made: `internal_key`."""

from __future__ import annotations

from typing import Literal

from flagscale_deploy.remote.messages.program import KIB, HostProgram, NoOrder, Target, TypedDict

# route_gate: change which servers are behind the gate, and see that it uses its files as they are.


class RouteGateArguments(Target):
    """What to change in the gate's configuration; with nothing to change, only what it uses is looked at."""

    remove: list[str]  # URLs of servers, from all models
    add: dict[str, list[str]]  # URLs by served name
    timeout: float  # in seconds, for all of it


class RouteGateReply(TypedDict):
    """What the gate says of itself afterwards."""

    problem: str  # why it does not use its files as they are; "" where it does
    open: int  # requests that removed servers still have of it
    restart_needed: bool  # whether something in its configuration changes with a restart only


ROUTE_GATE = HostProgram[RouteGateArguments, RouteGateReply, NoOrder]("route_gate", messages=1, message_bytes=16 * KIB)

# internal_key: what a run has made to speak to itself, for what is started later: the key by which its gate asks the
# servers behind it, and the token of its Ray.


class InternalKeyArguments(Target):
    """Whose key."""

    of: Literal["gate", "ray"]


class InternalKeyReply(TypedDict):
    """A secret."""

    key: str


INTERNAL_KEY = HostProgram[InternalKeyArguments, InternalKeyReply, NoOrder](
    "internal_key", messages=1, message_bytes=16 * KIB
)
