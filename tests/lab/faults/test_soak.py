"""A deployment started and stopped again and again by one process: nothing piles up, on either side.

FSD_SOAK=50 goes round 50 times, as the figures in docs/internals/reliability.md have it; CI goes round fewer times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flagscale_deploy.remote.deployment.kept import FOLDER, MOST
from tests.lab import Host, Lab
from tests.lab.faults.matrix import MATRIX
from tests.lab.keepers import REPOSITORY
from tests.lab.product.operator import eventually
from tests.lab.product.stand_in import StandIn

ROUNDS = int(os.environ.get("FSD_SOAK", "10"))
WARM = min(10, ROUNDS // 2)
"""By then everything is loaded that is loaded once, and logs have been turned over."""
GROWTH_BYTES = 3 << 20
"""What the resident memory may grow by from then to the last round."""
NAME, PORTS = "soak", (7950, 7951)

LOOK = r"""
import json, os
seen = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        command = open(f"/proc/{pid}/cmdline", "rb").read().replace(b"\0", b" ").decode().strip()
        if int(pid) != os.getpid() and open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z":
            seen.append(command)
    except OSError:
        pass
files = [os.path.join(where, name) for place in ("/root/.flagscale-deploy", "/tmp/", "/dev/shm", "/run")
         for where, _, names in os.walk(place) for name in names if "/pytest-" not in where]
sockets = [line.split()[1:4] for line in open("/proc/net/tcp").read().splitlines()[1:]]
print(json.dumps({"processes": sorted(seen), "files": sorted(files),
                  "ports": sorted(local for local, _, state in sockets if state == "0A")}))
"""


def on_host(host: Host) -> dict[str, list[str]]:
    """Return processes, listening ports and files of a host."""
    things: dict[str, list[str]] = json.loads(host.run(["python3", "-c", LOOK]).stdout)
    return things


def settled(lab: Lab) -> bool:
    """Whether no login is served any more on any host."""
    return not any(process.startswith("sshd: root") for host in lab.hosts for process in on_host(host)["processes"])


def configured(lab: Lab, stand_in: StandIn, place: Path) -> list[str]:
    models = {f"model{at}": {"model-tag": "lab/tiny", "port": port} for at, port in enumerate(PORTS)}
    timeouts = {"stop": 5, "ready": 30}
    content = {
        "experiment": {"exp_name": NAME},
        "model_args": models,
        "deploy": {"ray": "off", "timeouts": timeouts, "models": {name: {"num_gpus": 1} for name in models}},
    }
    config = place / "soak.yaml"
    config.write_text(yaml.safe_dump(content))
    return [str(lab.inventory(place / "hosts.yaml", venv=str(stand_in.environment))), str(config)]


@pytest.mark.timeout(900)
def test_starting_and_stopping_leaves_nothing_however_often(lab: Lab, stand_in: StandIn, tmp_path: Path) -> None:
    began = time.monotonic()
    argv = [sys.executable, "-m", "tests.lab.faults.soak", *configured(lab, stand_in, tmp_path), str(ROUNDS)]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    looks = []
    with subprocess.Popen(
        [*argv, str(WARM), str(ROUNDS)], cwd=tmp_path, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            held = json.loads(process.stdout.readline())
            assert eventually(lambda: settled(lab)), [on_host(host)["processes"] for host in lab.hosts]
            looks.append((held, [on_host(host) for host in lab.hosts]))
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == 0
    (before, hosts_before), (after, hosts_after) = looks
    for look in (*hosts_before, *hosts_after):
        kept = [path for path in look["files"] if Path(path).parent.name == FOLDER]
        assert len(kept) <= MOST, "the configurations of the newest runs"
        look["files"] = [path for path in look["files"] if path not in kept]
    grown = after.pop("resident") - before["resident"]
    note = (
        f"soak: {ROUNDS} starts and stops in {time.monotonic() - began:.0f} s; {before.pop('resident') >> 20} MiB"
        f" resident after {WARM}, {grown >> 10} KiB more at the end; {after}"
    )
    MATRIX.notes.append(note)
    assert after == before
    assert grown <= GROWTH_BYTES, note
    for then, now in zip(hosts_before, hosts_after, strict=True):
        assert now["processes"] == then["processes"]
        assert now["ports"] == then["ports"]
        assert len(now["files"]) == len(then["files"]), set(now["files"]) ^ set(then["files"])
    assert len(list((tmp_path / "outputs/soak/runs").iterdir())) == ROUNDS
    assert lab.leftovers(NAME) == []
