"""Tell which servers of a deployment clients connect to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar


class OfModel(Protocol):
    """A server of a model."""

    @property
    def model(self) -> str:
        """Return the model's name."""


AnyInstance = TypeVar("AnyInstance", bound=OfModel)
AnyRouter = TypeVar("AnyRouter", bound=OfModel)


def entrances(instances: Iterable[AnyInstance], routers: Sequence[AnyRouter]) -> tuple[AnyInstance | AnyRouter, ...]:
    """Return the servers that clients connect to: a model's router, else its instances."""
    routed = {router.model for router in routers}
    return (*routers, *(instance for instance in instances if instance.model not in routed))
