"""Validate what hosts reply during a push, before it becomes an index, a size, a path or an address.

The types of replies have been validated before (`transport/replies.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Literal

from flagscale_deploy.facts.model import Facts, checked_addresses, parse_interfaces
from flagscale_deploy.remote.messages.push import PushNetwork, PushReply, PushTree
from flagscale_deploy.remote.push.tree import pieces
from flagscale_deploy.remote.push.validate import MOST_BYTES, checked_digests, checked_number, checked_tree
from flagscale_deploy.transport.replies import brief

PORTS = range(1024, 1 << 16)
"""The ports that hosts may listen on: an ephemeral one, and none of a service."""
COUNTS = range(1 << 63)
TEXTS: frozenset[Literal["refused", "broken", "why"]] = frozenset(("refused", "broken", "why"))
MALFORMED = (ValueError, LookupError, TypeError, AttributeError)
"""What the use of a malformed reply raises."""
MOST_ADDRESSES = 32
"""The most addresses of a host that slots of others are kept for."""


class ReplyValidator:
    """Validates each reply by the tree that is pushed, once that is known."""

    def __init__(self) -> None:
        self._paths: frozenset[str] = frozenset()
        self._sizes: list[int] = []
        self._pieces = 0

    def set_tree(self, tree: PushTree) -> None:
        """Set the tree that is pushed."""
        self._paths = frozenset(entry["path"] for entry in tree["entries"])
        self._sizes = [entry["size"] for entry in tree["entries"] if entry["kind"] == "file"]
        self._pieces = len(pieces(self._sizes))

    def validate(self, reply: PushReply) -> None:
        """Raise MALFORMED for a reply that cannot be used. Cut a tree to what is valid, texts to what is shown."""
        for key in TEXTS & reply.keys():
            reply[key] = brief(reply[key])
        if "network" in reply:
            facts_of(reply["network"])
        if "tree" in reply:
            reply["tree"] = checked_tree(reply["tree"])
        if "digests" in reply:
            checked_digests(reply["digests"], self._sizes)
        if "hashed" in reply:
            checked_number(reply["hashed"], range(sum(self._sizes) + 1 if self._sizes else MOST_BYTES + 1), "hashed")
        if "received" in reply:
            checked_number(reply["received"], COUNTS, "received")
        self._validate_comparison(reply)
        self._validate_transfer(reply)

    def _validate_comparison(self, reply: PushReply) -> None:
        if "missing" in reply:
            for paths in (reply["missing"], reply["different"], reply["modes"], reply["blocked"]):
                self._known(paths)
        if "have" in reply:
            for piece in reply["have"]:
                checked_number(piece, range(self._pieces), "piece")
            checked_number(reply["needed"], COUNTS, "needed")
            checked_number(reply["free"], COUNTS, "free")
        if "finished" in reply:
            self._known(reply["finished"].get("missing", ()))

    def _validate_transfer(self, reply: PushReply) -> None:
        if "port" in reply:
            checked_number(reply["port"], PORTS, "port")
        if "got" in reply:
            checked_number(reply["got"], range(self._pieces), "piece")
        if "failed" in reply:
            checked_number(reply["failed"], range(self._pieces), "piece")
            if "kind" not in reply or "why" not in reply:
                raise ValueError("a piece failed for no reason")

    def _known(self, paths: Iterable[str]) -> None:
        """Raise ValueError for a path that is not in the tree."""
        if not self._paths.issuperset(paths):
            raise ValueError("it names a path that is not in the tree")


def facts_of(network: PushNetwork) -> Facts:
    """Return what a host reports of its addresses. Raises MALFORMED for what are none."""
    default = network["default_address"]
    checked_addresses(() if default is None else (default,))
    return Facts(interfaces=parse_interfaces(network["interfaces"]), default_address=default)


def peers_of(facts: Facts) -> list[str]:
    """Return the addresses that a host may connect from to another; 32 at most."""
    addresses = [ip_address(address) for interface in facts.interfaces for address in interface.addresses]
    return [str(address) for address in addresses if not (address.is_loopback or address.is_link_local)][
        :MOST_ADDRESSES
    ]
