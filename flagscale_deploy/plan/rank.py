"""Define a rank: a process of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

RankRole = Literal["driver", "follower", "dp", "prefill", "decode", "spare"]
API_PORT, MASTER_PORT, RPC_PORT, METRICS_PORT = "api", "master", "data-parallel-rpc", "metrics"
SIDE_CHANNEL, SUPERVISOR_PORT = "nixl", "supervisor"
"""Uses of a rank's ports."""


class RankStart(TypedDict):
    """How a rank is started, in JSON types."""

    role: str
    host: str
    gpus: list[int]
    ports: dict[str, int]
    argv: list[str]
    env: dict[str, str]


@dataclass(frozen=True)
class Rank:
    """A process of a group: what runs on one host, with its GPU indexes, `argv`, and `env` without secrets.

    A `driver` answers clients, and so does a `dp`, the API server of a host's own data-parallel ranks. A `follower`
    answers nobody, nor does a `spare`, which stands by for a follower. The driver has its server's name; in a pool it
    is a `prefill` or `decode`. `ports` are by use. The URLs are "" where it answers nobody.
    """

    name: str
    number: int
    role: RankRole
    host: str
    gpus: tuple[int, ...]
    argv: tuple[str, ...]
    env: Mapping[str, str]
    script: str
    ports: Mapping[str, int] = field(default_factory=dict)
    local_url: str = ""
    """The server's address on its own host, for the readiness probe."""
    worker_url: str = ""
    """The server's address on the data network, for a router."""
    data_rank: int | None = None
    """The first of its data-parallel ranks, where the driver answers for them."""

    @property
    def start(self) -> RankStart:
        """Return how it is started."""
        return {
            "role": self.role,
            "host": self.host,
            "gpus": list(self.gpus),
            "ports": dict(self.ports),
            "argv": list(self.argv),
            "env": dict(self.env),
        }

    @property
    def answers(self) -> bool:
        """Return whether it serves clients."""
        return self.role not in ("follower", "spare")

    @property
    def certificate(self) -> str | None:
        """Return the path of its TLS certificate on its host; None for plain HTTP, and where it answers nobody."""
        return flag_of(self.argv, "ssl-certfile") if self.answers else None


def flag_of(argv: Sequence[str], name: str) -> str | None:
    """Return the value of a flag in a command line, `--name=value`: the last one counts."""
    values = [word.partition("=")[2] for word in argv if word.startswith(f"--{name}=")]
    return values[-1] if values else None
