"""What checks ask: `network_test` tries connections between hosts, `parse_flags` has vLLM read command lines."""

from __future__ import annotations

from typing import Literal, Sequence

from flagscale_deploy.remote.messages.program import HostProgram, NoOrder, TypedDict

# network_test: listen on ports and try those of other hosts, until standard input ends.


class Address(TypedDict):
    """Where to listen or connect."""

    address: str
    port: int  # 0: an ephemeral port


class NetworkTestArguments(TypedDict):
    """Where to listen."""

    ports: list[Address]
    token: str  # that only the programs of one check know, in hexadecimal


class OpenedPort(TypedDict, total=False):
    """`port`, or what kept it from being opened."""

    port: int
    taken: bool
    problem: str


ConnectFailure = Literal["no-route", "refused", "timed-out", "unreachable", "wrong-peer"]
"""no-route: this host's own kernel sent nothing. unreachable: a router or a firewall on the way reported it."""


class TriedAddress(TypedDict):
    """An attempt to connect; `failure` is None where the right program answered."""

    seconds: float  # until it was connected
    failure: ConnectFailure | None
    problem: str  # the failure in words


class Measured(TypedDict):
    """Of one connection; None where it could not be measured."""

    latency: float | None
    bandwidth: float | None  # bytes a second that this host received


class NetworkTestReply(TypedDict, total=False):
    """`listening` first, in the order of `ports`; then `tried` for each `try`, a measurement for each `measure`."""

    listening: list[OpenedPort]
    tried: list[TriedAddress]
    latency: float | None  # as in Measured
    bandwidth: float | None


_NetworkTestOrder = TypedDict("_NetworkTestOrder", {"try": "list[Address]", "measure": Address}, total=False)


class NetworkTestOrder(_NetworkTestOrder, total=False):
    """One of the two."""


NETWORK_TEST = HostProgram[NetworkTestArguments, NetworkTestReply, NetworkTestOrder]("network_test")

# parse_flags


class ParseFlagsArguments(TypedDict):
    """Command lines, and the environment in which vLLM is found."""

    venv: str | None
    before_start: str | None
    env: dict[str, str]
    exports: str  # shell: variables made of those of the host
    program: str  # text of remote/engine/vllm_parser.py
    lines: Sequence[Sequence[str]]  # argv from "serve" on
    seconds: float


class ParsedFlags(TypedDict):
    """What the parser makes of a line."""

    error: str
    unknown: list[str]  # flags


class ParseFlagsReply(TypedDict, total=False):
    """`known` and `parsed`, in the order of the lines, or `broken`."""

    known: list[str]  # flags of this vLLM
    parsed: list[ParsedFlags]
    broken: str


PARSE_FLAGS = HostProgram[ParseFlagsArguments, ParseFlagsReply, NoOrder]("parse_flags")
