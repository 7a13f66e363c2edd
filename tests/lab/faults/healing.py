"""A deployment that serves with `deploy.restart`: after each fault it serves again, or is given up, without a person.

A stage of it is a host that is hit: with Ray the head's, which has the engine, or the worker's; in a group of ranks
without Ray the driver's or the follower's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.lab.faults.scene import NAME, PORT, STATE, Scene, configuration, pause
from tests.lab.faults.stages import Stage, ready
from tests.lab.product import cron
from tests.lab.product.operator import eventually
from tests.lab.product.stand_in import given

HEAD, WORKER, DRIVER, FOLLOWER = "restart on: head", "Ray worker", "group's driver", "follower"
SERVER = "model0/0"
RESTARTED = ("restarting", "restored", "gave up")
LOST = HANG = 8.0
RESTARTS: dict[str, Any] = {
    "policy": "on-failure", "max": 3, "backoff": 0.2, "lost": LOST, "hang": HANG, "interval": 1, "boot": True,
}  # fmt: skip
METRICS = {"vllm:num_requests_running": 0, "vllm:generation_tokens_total": 7}
"""Of an engine that is idle: without counters none is judged to hang."""
WITHIN = 120.0
"""Seconds until it serves again, ten times what is measured."""


@dataclass(frozen=True)
class Healing:
    """What becomes of a fault: the restarts of the instance that it costs, and what `history` says of them.

    `gave_up` and `problem` are what `status` then says (patterns): why there are no more restarts, or that it serves
    all the same. The fault lasts for so many seconds.
    """

    restarts: int = 0
    reason: str = ""
    gave_up: str = ""
    problem: str = ""
    lasts: float = 0.0

    @property
    def shown(self) -> str:
        """Return it as the table shows it."""
        if self.gave_up:
            return "gave up"
        return f"{self.restarts} restart{'' if self.restarts == 1 else 's'}"


def serve_with(restarts: Mapping[str, Any], *, group: bool) -> Callable[[Scene], None]:
    """Return what brings a deployment with these restarts up, with or without Ray."""

    def reach(scene: Scene) -> None:
        scene.group = group
        way = {"executor": "mp"} if group else {"ray": "on"}
        envs = {"STAND_IN_METRICS": json.dumps(METRICS), "STAND_IN_RAYLET": "leaves"}
        configuration(scene.config, {**way, "restart": dict(restarts)}, **envs)
        for host in scene.lab.hosts:
            cron.install(host)
        ready(scene)
        scene.kept["engines"] = started(scene)

    return reach


def without_cron(scene: Scene) -> None:
    for host in scene.lab.hosts:
        cron.remove(host)


STAGES = (
    Stage(HEAD, "run", 0, serve_with(RESTARTS, group=False), without_cron),
    Stage(WORKER, "run", 1, serve_with(RESTARTS, group=False), without_cron),
    Stage(DRIVER, "run", 0, serve_with(RESTARTS, group=True), without_cron),
    Stage(FOLLOWER, "run", 1, serve_with(RESTARTS, group=True), without_cron),
)

UNNOTICED = Healing(lasts=LOST + 4)
OF_CORE = r"EngineCore .*has ended|ended with exit status 1"
KILLED = "was ended by SIGKILL"
SILENT = rf"(node\d is lost: silent for|node\d was started again|{KILLED})"
BOOTED = r"was started again: its host was rebooted|its host was rebooted|node\d is lost: silent for"
AGAIN = rf"gave up after {RESTARTS['max']} restarts"
FOLLOWERS = rf"rank 1 on node2 .*({KILLED}|{OF_CORE})"

HEALINGS: Mapping[str, Mapping[str, Healing]] = {
    "SSH connection dropped": {HEAD: Healing(lasts=2), FOLLOWER: Healing(lasts=2)},
    "cable cut": {
        HEAD: UNNOTICED,
        DRIVER: Healing(1, SILENT, lasts=LOST + 6),
        FOLLOWER: Healing(1, SILENT, lasts=LOST + 6),
    },
    "cable cut and joined": {HEAD: Healing(lasts=2), DRIVER: Healing(lasts=2), FOLLOWER: Healing(lasts=2)},
    "sshd never answers": {HEAD: UNNOTICED, FOLLOWER: UNNOTICED},
    "host at 1 kB/s": {FOLLOWER: UNNOTICED},
    "power loss": {
        HEAD: Healing(1, BOOTED, lasts=2),
        WORKER: Healing(lasts=LOST),
        DRIVER: Healing(1, BOOTED, lasts=LOST + 2),
        FOLLOWER: Healing(1, BOOTED, lasts=LOST + 2),
    },
    "host rebooted": {
        HEAD: Healing(1, BOOTED),
        WORKER: Healing(),
        DRIVER: Healing(1, BOOTED),
        FOLLOWER: Healing(1, BOOTED),
    },
    "host's disk fills": {HEAD: UNNOTICED, FOLLOWER: UNNOTICED},
    "home read-only": {DRIVER: UNNOTICED},
    "clock jump (faked in the record)": {DRIVER: Healing(lasts=2)},
    "/tmp cleaned under Ray": {HEAD: UNNOTICED},
    "raylet killed": {HEAD: Healing(1, "lost Ray's raylet"), WORKER: Healing()},
    "GCS killed": {HEAD: Healing(1, "lost Ray's raylet")},
    "engine killed": {HEAD: Healing(1, KILLED), DRIVER: Healing(1, KILLED), FOLLOWER: Healing(1, FOLLOWERS)},
    "a worker process killed": {
        HEAD: Healing(1, OF_CORE), DRIVER: Healing(1, OF_CORE), FOLLOWER: Healing(1, FOLLOWERS),
    },
    "engine hangs": {HEAD: Healing(1, r"hung \d+ s: no token"), DRIVER: Healing(1, r"hung \d+ s: no token")},
    "engine dies while it loads": {
        HEAD: Healing(3, gave_up=AGAIN), DRIVER: Healing(3, gave_up=AGAIN), FOLLOWER: Healing(3, gave_up=AGAIN),
    },
    "/tmp cleaned, engine killed": {HEAD: Healing(1, KILLED), FOLLOWER: Healing(1, FOLLOWERS)},
    "supervisor killed": {HEAD: Healing(problem="its supervisor is gone", lasts=2)},
}  # fmt: skip
"""By fault and stage."""

NOT_STRUCK: Mapping[str, str] = {
    "operator killed": "no command is running",
    "Ctrl-C twice": "no command is running",
    "operator's disk fills": "nothing of the operator's takes part",
}
"""Why a fault strikes none of these stages.

A stage that is left out of another fault has nothing that could be hit (a follower no GCS, a Ray worker no engine), or
would be the same as its other one. Ray's own time-outs are those of real Ray (tests/e2e).
"""


def heal(scene: Scene, expected: Healing, undo: Callable[[Scene], None]) -> None:
    """Let the fault last, undo it, and wait until the deployment serves again, with as many restarts as expected.

    One that is given up is so while the fault lasts.
    """
    if expected.lasts:
        pause(expected.lasts)
    if not expected.gave_up:
        undo(scene)
    seen: dict[str, Any] = {}

    def healed() -> bool:
        seen["status"] = scene.start("status", "--json").end(None, 100).json
        return is_healed(scene, expected, seen["status"])

    assert eventually(healed, WITHIN, every=0.5), f"{json.dumps(seen['status'], indent=1)}\n{last_words(scene)}"
    scene.command = None
    undo(scene)
    assert_history(scene, expected)
    if expected.restarts and not expected.gave_up:
        assert started(scene) != scene.kept["engines"]


def is_healed(scene: Scene, expected: Healing, status: Any) -> bool:
    """Whether the status is the expected one, and tells the truth."""
    (instance,) = status["instances"]
    true = {host["host"]: host["processes"] for host in status["hosts"]} == {
        host.name: len(scene.processes(host)) for host in scene.lab.hosts
    }
    last = [event["event"] for event in history(scene)][-1:]
    if expected.gave_up:
        given_up = instance["state"] == "gave up" and last == ["gave up"]
        return bool(true and given_up and re.search(expected.gave_up, instance["problem"]))
    return bool(
        true
        and last == ["restored"][: expected.restarts]
        and status["state"] == "ready"
        and instance["restarts"] == expected.restarts
        and re.search(expected.problem, instance["problem"])
        and scene.answers()
    )


def started(scene: Scene) -> list[int]:
    """Return the pids of the engines."""
    hosts = scene.lab.hosts if scene.group else scene.lab.hosts[:1]
    return [given(host, PORT if host.index == 0 else 0)["pid"] for host in hosts if host.alive]


def history(scene: Scene, index: int = 0, server: str = SERVER) -> list[dict[str, Any]]:
    """Return what a host's history.jsonl says of the restarts of the instance, or of another server."""
    host = scene.lab.hosts[index]
    lines = host.run(f"cat {STATE}/{host.name}/history.jsonl", check=False).stdout.splitlines()
    return [event for event in map(json.loads, lines) if event.get("server") == server and event["event"] in RESTARTED]


def assert_history(scene: Scene, expected: Healing) -> None:
    """Every restart is in the history of the driver's host with its reason, and so is what became of it."""
    events = history(scene)
    restarting = [event for event in events if event["event"] == "restarting"]
    assert len(restarting) == expected.restarts, events
    assert [event["attempt"] for event in restarting] == list(range(1, expected.restarts + 1)), events
    assert all(re.search(expected.reason, event["reason"]) for event in restarting), events


def last_words(scene: Scene) -> str:
    """Return what the supervisors have logged."""
    words = []
    for host in scene.lab.hosts:
        logged = host.run(f"cd {STATE}/{host.name}/logs && grep -h flagscale-deploy *.log boot.log", check=False)
        words.append(f"{host.name}:\n{logged.stdout[-3000:]}")
    return "\n".join(words)


def assert_gone(scene: Scene) -> None:
    """After `stop`: no process is left, and nothing starts after a reboot."""
    assert {host.name: scene.processes(host) for host in scene.lab.hosts} == {host.name: [] for host in scene.lab.hosts}
    assert [cron.entries(host) for host in scene.lab.hosts] == [[] for _ in scene.lab.hosts], NAME
