"""A host program, by its name and the types of what it is sent and what it replies."""

from __future__ import annotations

from typing import Generic, TypedDict, TypeVar

Arguments = TypeVar("Arguments")
Reply = TypeVar("Reply")
Order = TypeVar("Order")


class HostProgram(Generic[Arguments, Reply, Order]):
    """A module of `remote/programs/`: `HostProgram[ProbeArguments, ProbeReply, NoOrder]("probe")`."""

    def __init__(self, name: str) -> None:
        self.name = name


class NoOrder(TypedDict):
    """What is sent to a program that takes no orders: nothing."""


class Target(TypedDict):
    """A deployment's part on one host."""

    deployment: str
    host: str  # its name in the inventory


class RunTarget(Target):
    """The same of one run."""

    run_id: str
