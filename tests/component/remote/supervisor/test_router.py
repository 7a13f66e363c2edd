"""A router that dies while its deployment is changed: which servers and which command line it comes back with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from flagscale_deploy.remote.system.proc import MARKER
from tests.component.remote.living import HOST_PYTHON, Home, runs, wait_until
from tests.component.remote.programs.test_route import ROUTER, free_port
from tests.component.remote.supervisor.supervised import SCRIPT, Supervised

NOTING = f"""
import os, runpy, sys
open(sys.argv.pop(1), "a").write("%d\\n" % os.getpid())
runpy.run_path({str(ROUTER)!r}, run_name="__main__")
"""
"""A router that notes each of its lives by its pid."""
A, B, C = "http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://10.0.0.3:8000"


def group(name: str, url: str, **more: Any) -> dict[str, Any]:
    rank = {"name": name, "local_url": "http://127.0.0.1:8000", "worker_url": url}
    return {"name": name, "model": "m", "ranks": [rank], **more}


def changing(step: str, *groups: str) -> dict[str, Any]:
    return {"run_id": "c1", "operator": "alice@desk", "base": "r1", "groups": [*groups], "step": step, "done": [],
            "secrets": False, "at": 1.0}  # fmt: skip


class Routed(Supervised):
    """A router with its supervisor, started by its launch script."""

    def __init__(self, home: Home, folder: Path) -> None:
        super().__init__(home, folder)
        self.port = free_port()
        self.script = home.state / "scripts" / SCRIPT

    def write(self, *workers: str, before: str = "", flag: str = "--policy=one") -> None:
        """Write the launch script, as an update does."""
        words = [HOST_PYTHON, f"{self.home.state}/supervisor", "supervise", f"--state={self.home.state}", "--run=r1",
                 f"--script={SCRIPT}", "--name=m/router", "--max=5", "--first=0.05", "--factor=1", "--ceiling=0.05",
                 "--reset-after=600", f"--health=http://127.0.0.1:{self.port}/health", "--router=m", "--",
                 sys.executable, "-c", NOTING, str(self.folder / "lives"),
                 "--worker-urls", *workers, flag, f"--port={self.port}"]  # fmt: skip
        fresh = self.script.with_suffix(".new")
        fresh.write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{before}\nexec {subprocess.list2cmdline(words)}\n")
        fresh.replace(self.script)

    def begin(self, *workers: str) -> None:
        self.write(*workers)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                ["bash", str(self.script)], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
                env=os.environ | {MARKER: f"{self.home.deployment}/r1", "HOME": str(self.home.path)},
            )  # fmt: skip
        wait_until(self.listens)
        self.files.permit()
        wait_until(lambda: bool(self.said.get("healthy")))

    def listens(self) -> bool:
        return self.lives != [] and self.workers() is not None

    def workers(self) -> list[str] | None:
        """Return what is behind it; None while it does not answer."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/list_workers", timeout=20) as answer:
                return sorted(json.load(answer)["urls"])
        except OSError:
            return None

    def die(self) -> None:
        """Kill the router, and wait until another one answers."""
        before = len(self.lives)
        self.kill()
        wait_until(lambda: len(self.lives) > before and self.workers() is not None)

    def words(self) -> list[str]:
        return Path(f"/proc/{self.lives[-1]}/cmdline").read_text().split("\0")


@pytest.fixture
def routed(supervised: Supervised, tmp_path: Path) -> Iterator[Routed]:
    router = Routed(supervised.home, tmp_path)
    yield router
    supervised.process = router.process  # which is ended with what is left of it


def test_a_router_comes_back_with_the_servers_that_the_record_has_behind_it(routed: Routed) -> None:
    """vllm-router would not listen before a server that is stopped is healthy."""
    groups = [group("m/0", A), group("m/1", B)]
    routed.home.record(instances=groups)
    routed.begin(A, B)
    assert routed.workers() == [A, B]
    for step, behind in (("drain", [B]), ("stop", [B]), ("start", [B]), ("return", [A, B])):
        routed.home.record(instances=groups, change=changing(step, "m/0"))
        routed.die()
        assert (step, routed.workers()) == (step, behind)
    routed.home.record(instances=[*groups, group("m/2", C), group("other/0", "http://10.0.0.9:1", model="other")])
    routed.die()
    assert routed.workers() == [A, B, C]
    assert f"m/router its servers are by now: {A}, {B}, {C}" in routed.told


def test_a_script_that_has_changed_takes_the_place_of_its_supervisor(routed: Routed) -> None:
    routed.home.record(instances=[group("m/1", B)])
    routed.begin(B)
    assert "--policy=one" in routed.words()
    routed.die()
    routed.write(A, B, flag="--policy=two")
    routed.die()
    assert "--policy=two" in routed.words()
    assert routed.workers() == [B]
    assert not routed.ended
    assert {key: routed.said[key] for key in ("restarts", "in_a_row", "last_exit")} == {
        "restarts": 2, "in_a_row": 2, "last_exit": "was ended by SIGKILL",
    }  # fmt: skip
    history = routed.home.state / "history.jsonl"
    wait_until(lambda: json.loads(history.read_text().splitlines()[-1])["event"] == "restored")
    routed.die()
    assert (routed.said["restarts"], routed.said["in_a_row"]) == (3, 3)
    assert routed.told.count("starts with its script as it is by now") == 1
    os.kill(routed.pid, signal.SIGTERM)
    assert routed.wait() == 128 + signal.SIGTERM
    assert not runs(routed.lives[-1])


def test_a_stop_while_the_script_begins_is_the_end(routed: Routed, tmp_path: Path) -> None:
    routed.home.record(instances=[group("m/1", B)])
    routed.begin(B)
    begun, go = tmp_path / "begun", tmp_path / "go"
    routed.write(B, before=f"touch {begun}\nuntil [ -e {go} ]; do sleep 0.05; done")
    routed.kill()
    wait_until(begun.exists)
    routed.files.forbid()
    go.touch()
    assert routed.wait() == 0
    assert len(routed.lives) == 1
    assert routed.said["state"] == "ended"


def test_a_signal_while_the_script_begins_is_the_end(routed: Routed, tmp_path: Path) -> None:
    routed.home.record(instances=[group("m/1", B)])
    routed.begin(B)
    begun = tmp_path / "begun"
    routed.write(B, before=f"touch {begun}\nsleep 600 &\nwait")
    routed.kill()
    wait_until(begun.exists)
    os.kill(routed.pid, signal.SIGTERM)
    assert routed.wait() == -signal.SIGTERM
    assert len(routed.lives) == 1
