"""A host program, by its name and the types of what it is sent and what it replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing import TypedDict as TypedDict
else:
    try:  # an operator's Python, where replies are validated: before 3.12, pydantic reads only this one
        from typing_extensions import TypedDict
    except ImportError:
        from typing import TypedDict

Arguments = TypeVar("Arguments")
Reply = TypeVar("Reply")
Order = TypeVar("Order")

KIB, MIB = 1 << 10, 1 << 20


class HostProgram(Generic[Arguments, Reply, Order]):
    """A module of `remote/programs/`: `HostProgram[ProbeArguments, ProbeReply, NoOrder]("probe")`.

    `messages` is how many messages it may send at once, and `message_bytes` the longest of them. All that it sends may
    be eight times as much, and `bytes_per_second` more for each second that it runs; None: as much as is read, because
    reading is what it is for.
    """

    def __init__(
        self, name: str, *, messages: int = 1000, message_bytes: int = MIB, bytes_per_second: int | None = 64 * KIB
    ) -> None:
        self.name, self.messages = name, messages
        self.message_bytes, self.bytes_per_second = message_bytes, bytes_per_second


class NoOrder(TypedDict):
    """What is sent to a program that takes no orders: nothing."""


class Target(TypedDict):
    """A deployment's part on one host."""

    deployment: str
    host: str  # its name in the inventory


class RunTarget(Target):
    """The same of one run."""

    run_id: str
