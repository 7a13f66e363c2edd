"""What is done about servers that end, and hosts that reboot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RestartPolicy = Literal["no", "on-failure"]


@dataclass(frozen=True)
class RestartSpec:
    """`deploy.restart`: restarts of servers that end after they were ready, and of hosts that reboot.

    The nth restart in a row waits first × factor^(n-1) seconds, `ceiling` at most; after `maximum` in a row there are
    no more. `reset_after` seconds of health reset the count, as Kubernetes does after ten minutes. With `boot` a host
    that reboots starts its part again. A group of ranks is restarted as a whole, also when one of its hosts was silent
    for `lost` seconds; with `spare`, its rank goes to another host. An engine without a token for `hang` seconds is
    restarted, though it runs; one that is quiet for `interval` seconds is asked for a token. Both are 0 for off.
    `notify` is a command for bash that is told what becomes of restarts.
    """

    policy: RestartPolicy = "no"
    maximum: int = 5
    first: float = 1.0
    factor: float = 2.0
    ceiling: float = 60.0
    reset_after: float = 600.0
    boot: bool = False
    lost: float = 60.0
    spare: bool = False
    hang: float = 600.0
    interval: float = 60.0
    notify: str | None = None

    @property
    def supervised(self) -> bool:
        """Return whether servers that die are restarted."""
        return self.policy == "on-failure"
