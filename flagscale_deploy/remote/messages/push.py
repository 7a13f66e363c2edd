"""Pushes: `push_host` receives a tree and passes it on, `push_source` sends one. Both end with standard input.

A path travels as its bytes, each as the character of the same number (Latin-1).
"""

from __future__ import annotations

from typing import Literal, Sequence

from flagscale_deploy.remote.messages.probe import ProbedInterface
from flagscale_deploy.remote.messages.program import MIB, HostProgram, TypedDict


class _TreeEntry(TypedDict):
    path: str
    kind: Literal["file", "dir", "link"]
    mode: int  # of tree.PERMISSIONS
    size: int  # 0 of what is no file
    mtime_ns: int


class TreeEntry(_TreeEntry, total=False):
    """A file, directory or link of a tree."""

    target: str  # of a link


class PushTree(TypedDict):
    """What is pushed, in the order of paths."""

    single: bool  # whether it is a file
    mode: int
    entries: list[TreeEntry]
    left_out: list[str]  # devices, pipes and sockets
    outside: list[str]  # links that lead out of the tree; as computed by whoever validates it


class PushNetwork(TypedDict):
    """Where a host may be called; as the probe has it."""

    interfaces: list[ProbedInterface]
    default_address: str | None


class PushFinish(TypedDict, total=False):
    """How it ended."""

    missing: list[str]  # paths of files that are not there


PieceFailure = Literal["connect", "transfer", "corrupt", "cancelled"]
"""Why a piece did not come. corrupt: with the wrong hash."""


class PushReply(TypedDict, total=False):
    """What a program of a push reports; keys that come together stand together."""

    network: PushNetwork  # first
    tree: PushTree  # with network, of a source

    refused: str  # why an order cannot be carried out
    broken: str  # why this host cannot go on at all

    hashed: int  # bytes so far
    looked: bool  # to look, of a host
    digests: list[str]  # to hash, of a source: hashes of the blocks of each file

    missing: list[str]  # to compare: paths
    different: list[str]
    modes: list[str]
    blocked: list[str]  # a directory stands in the place of a file, or the reverse

    have: list[int]  # to prepare: pieces
    needed: int
    free: int

    port: int  # to listen
    got: int  # to fetch or feed: a piece
    seconds: float
    failed: int  # or why a piece did not come
    kind: PieceFailure
    why: str
    fed: int  # bytes of a feed
    received: int  # bytes so far

    read: int  # to read, of a source: the order's number
    data: str  # base64

    finished: PushFinish  # to finish and leave; the last


class PushLook(TypedDict):
    """Hash what is there of a tree; with `checksum`, also what was hashed before."""

    dest: str
    tree: PushTree
    checksum: bool


_PushOrder = TypedDict(
    "_PushOrder",
    {
        "look": PushLook,
        "hash": bool,  # of a source
        "compare": Sequence[str],  # hashes of the blocks of each file
        "prepare": bool,  # make room; say what is there and what is needed
        "listen": str,  # address; only now others can get something
        "peers": Sequence[str],  # with listen: the addresses of the push's hosts
        "fetch": int,  # a piece, `from` an address and port
        "from": "tuple[str, int]",
        "cancel": int,  # a piece that was to be fetched
        "feed": int,  # a piece; `size` of its bytes, from `at` on, follow the message
        "at": int,
        "size": int,
        "read": int,  # a number for the reply; `length` bytes of a file from `offset` on
        "file": int,
        "offset": int,
        "length": int,
        "finish": bool,  # put links and modes in order, and end
        "leave": bool,  # end, and leave nothing
        "alive": bool,  # the operator is there
    },
    total=False,
)


class PushOrder(_PushOrder, total=False):
    """An order of a push. One that is carried out at once (fetch, cancel, feed, alive) does not wait for the others."""


class PushHostArguments(TypedDict):
    """A receiver; the token is known to the programs of one push, in hexadecimal."""

    host: str
    token: str


class PushSourceArguments(PushHostArguments):
    """A sender."""

    source: str  # path
    copy_links: bool  # send what links lead to in their place
    checksum: bool  # hash what was hashed before again


PUSH_HOST = HostProgram[PushHostArguments, PushReply, PushOrder](
    "push_host", message_bytes=8 * MIB, bytes_per_second=None
)
"""It confirms every chunk and every piece; `push/members.py` and `push/session.py` bound what that costs."""
PUSH_SOURCE = HostProgram[PushSourceArguments, PushReply, PushOrder](
    "push_source", message_bytes=8 * MIB, bytes_per_second=None
)
