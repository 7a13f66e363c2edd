"""How a command is brought to exactly one stage, and held there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from flagscale_deploy.api.request import Options, load_request
from flagscale_deploy.deploy.lock import lock
from tests.lab import Host
from tests.lab.faults.scene import NAME, PORT, STATE, Scene
from tests.lab.product.operator import eventually
from tests.lab.product.stand_in import is_started

WHOLE, PROBED, UPLOADING, RAY, LOADING, READY, ENGINES_END, RAY_ENDS = (
    "throughout", "after probe", "uploading", "Ray starting", "loading", "ready", "engines end", "Ray ends",
)  # fmt: skip
WITHIN = 240.0


def let_go(_scene: Scene) -> None:
    """Nothing is held."""


@dataclass(frozen=True)
class Stage:
    """A moment of `run` or `stop`.

    `at` is the host that the command waits for, `reach` brings it there and holds it, `release` lets it go on.
    """

    name: str
    command: str
    at: int
    reach: Callable[[Scene], None]
    release: Callable[[Scene], None] = let_go


def from_the_start(scene: Scene) -> None:
    """Start the command; the fault is there already."""
    scene.start("run")


def probed(scene: Scene) -> None:
    """Every host has answered; somebody else holds the deployment's lock, and is waited for."""
    request = load_request(
        Options(inventory=str(scene.desk.inventory), config=str(scene.config)),
        environ={"HOME": str(scene.desk.directory)},
    )
    held = scene.kept["lock"] = ExitStack()
    fleet = held.enter_context(request.fleet())
    held.enter_context(lock(fleet, scene.lab.hosts[0].name, NAME, "a test"))
    running = scene.start("run", "--lock-timeout", "90")
    running.wait_for("probe: 2 hosts (", WITHIN)
    programs = ["pgrep", "-cf", "[s]ys.stdin.buffer"]  # the test's that holds the lock, and one that waits for it
    assert eventually(lambda: int(scene.lab.hosts[0].run(programs, check=False).stdout) >= 2, WITHIN), running.said


def let_go_of_lock(scene: Scene) -> None:
    if "lock" in scene.kept:
        scene.kept.pop("lock").close()


def uploading(scene: Scene) -> None:
    """Hold `run` where the second host is reserved, has its files, and can't write its record."""
    host = scene.lab.hosts[1]
    directory = f"{STATE}/{host.name}"
    made = (
        f"until grep -qs run_id {directory}/record.json; do sleep 0.01; done;"
        f" exec flock -F {directory}/record.lock sleep 3600"
    )
    started = host.run(f"setsid bash -c '{made}' </dev/null >/dev/null 2>&1 & echo $!")
    scene.kept["record"] = started.stdout.strip()
    running = scene.start("run")
    assert eventually(lambda: there(host, f"{directory}/secrets/env"), WITHIN), running.said


def let_go_of_record(scene: Scene) -> None:
    pid = scene.kept.pop("record", None)
    if pid and scene.lab.hosts[1].alive:
        scene.lab.hosts[1].run(["kill", pid], check=False)


def ray_starting(scene: Scene) -> None:
    """Hold `run` where the head's daemons run, and the second host's script is about to start its own."""
    scene.hold(scene.lab.hosts[1], "ray")
    running = scene.start("run")
    assert eventually(lambda: there(scene.lab.hosts[1], "/dev/shm/hold-ray-reached"), WITHIN), running.said
    assert eventually(lambda: scene.daemons(scene.lab.hosts[0], "raylet"), WITHIN), running.said


def loading(scene: Scene) -> None:
    scene.hold(scene.lab.hosts[0], "loading")
    running = scene.start("run")
    assert eventually(lambda: is_started(scene.lab.hosts[0], PORT), WITHIN), running.said
    running.wait_for("loading weights", WITHIN)


def ready(scene: Scene) -> None:
    """Run the command to its end; what it made is there."""
    scene.start("run").end(0, WITHIN)
    scene.command = None


def engines_end(scene: Scene) -> None:
    ready(scene)
    scene.hold(scene.lab.hosts[0], "engine")
    scene.start("stop").wait_for("engines: SIGTERM to", WITHIN)


def ray_ends(scene: Scene) -> None:
    ready(scene)
    scene.hold(scene.lab.hosts[1], "raylet")
    scene.start("stop").wait_for("[node2] stop: ray: SIGTERM to", WITHIN)


def there(host: Host, path: str) -> bool:
    return host.run(f"test -e {path}", check=False).returncode == 0


STAGES = (
    Stage(WHOLE, "run", 0, from_the_start),
    Stage(PROBED, "run", 0, probed, let_go_of_lock),
    Stage(UPLOADING, "run", 1, uploading, let_go_of_record),
    Stage(RAY, "run", 1, ray_starting, lambda scene: scene.release(scene.lab.hosts[1], "ray")),
    Stage(LOADING, "run", 0, loading, lambda scene: scene.release(scene.lab.hosts[0], "loading")),
    Stage(READY, "run", 0, ready),
    Stage(ENGINES_END, "stop", 0, engines_end, lambda scene: scene.release(scene.lab.hosts[0], "engine")),
    Stage(RAY_ENDS, "stop", 1, ray_ends, lambda scene: scene.release(scene.lab.hosts[1], "raylet")),
)
