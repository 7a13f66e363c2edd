"""A deployment started and stopped again and again by one process: nothing piles up, on either side.

FSD_SOAK=50 goes round 50 times, as the figures in docs/reliability.md have it; CI goes round fewer times.
"""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from flagscale_deploy import api
from flagscale_deploy.request import Options, Request, load_request
from tests.lab import Host, Lab
from tests.lab.product.operator import eventually

ROUNDS = int(os.environ.get("FSD_SOAK", "10"))
WARM = min(10, ROUNDS // 2)
"""By then everything is loaded that is loaded once, and logs have been turned over."""
GROWTH_BYTES = 4 << 20
"""What the resident memory may grow by from then to the last round: less than 0.1 MiB a round in the whole."""
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
files = [os.path.join(where, name) for place in ("/root", "/tmp", "/dev/shm", "/run") for where, _, names
         in os.walk(place) for name in names]
sockets = [line.split()[1:4] for line in open("/proc/net/tcp").read().splitlines()[1:]]
print(json.dumps({"processes": sorted(seen), "files": sorted(files),
                  "ports": sorted(local for local, _, state in sockets if state == "0A")}))
"""


@dataclass(frozen=True)
class Held:
    """What this process holds."""

    descriptors: int
    threads: tuple[str, ...]
    children: tuple[str, ...]


def held() -> Held:
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    names = sorted(each.name for each in threading.enumerate())
    return Held(len(os.listdir("/proc/self/fd")), tuple(names), tuple(children))


def resident() -> int:
    """Bytes of this process in memory, once what is garbage is gone."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def on_host(host: Host) -> dict[str, list[str]]:
    """Processes, listening ports and files of a host. A new run's directory in /tmp has a new name, the same files."""
    found: dict[str, list[str]] = json.loads(host.run(["python3", "-c", LOOK]).stdout)
    return found


def settled(lab: Lab) -> bool:
    """Whether no login is served any more on any host."""
    return not any(each.startswith("sshd: root") for host in lab.hosts for each in on_host(host)["processes"])


@pytest.fixture
def request_for(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Request]:
    monkeypatch.chdir(tmp_path)
    inventory = lab.inventory(tmp_path / "hosts.yaml", venv=str(environment_of(lab)))
    models = {f"model{at}": {"model-tag": "lab/tiny", "port": port} for at, port in enumerate(PORTS)}
    content = {
        "experiment": {"exp_name": NAME},
        "model_args": models,
        "deploy": {"ray": "off", "timeouts": {"stop": 5, "ready": 30}},
    }
    config = tmp_path / "soak.yaml"
    config.write_text(yaml.safe_dump(content))
    options = Options(inventory=str(inventory), config=str(config))
    return lambda: load_request(options, environ={"HOME": str(tmp_path)})


def environment_of(lab: Lab) -> Path:
    return next(Path(each) for each in lab.mounts if each.endswith("/environment"))


@pytest.mark.timeout(900)
def test_starting_and_stopping_leaves_nothing_however_often(
    lab: Lab, request_for: Callable[[], Request], record_property: Callable[[str, object], None]
) -> None:
    began = time.monotonic()
    holds, memory, hosts = {}, {}, {}
    for turn in range(1, ROUNDS + 1):
        request = request_for()
        assert api.run(request).up is not None
        assert api.status(request).state == "ready"
        assert api.stop(request).exit_code == 0
        if turn in (WARM, ROUNDS):
            assert eventually(lambda: settled(lab)), [on_host(host)["processes"] for host in lab.hosts]
            holds[turn], memory[turn] = held(), resident()
            hosts[turn] = [on_host(host) for host in lab.hosts]
    grown = memory[ROUNDS] - memory[WARM]
    record_property("soak", f"{ROUNDS} rounds in {time.monotonic() - began:.0f} s: {memory[WARM] >> 10} KiB resident "
                            f"after {WARM}, {grown >> 10} KiB more at the end, {holds[ROUNDS]}")  # fmt: skip
    assert holds[ROUNDS] == holds[WARM]
    assert grown <= GROWTH_BYTES, f"{grown >> 10} KiB more after {ROUNDS} rounds than after {WARM}"
    for then, now in zip(hosts[WARM], hosts[ROUNDS], strict=True):
        assert now["processes"] == then["processes"]
        assert now["ports"] == then["ports"]
        assert len(now["files"]) == len(then["files"]), set(now["files"]) ^ set(then["files"])
    assert len(list(Path("outputs/soak/runs").iterdir())) == ROUNDS
    assert api.cleanup(request_for()).exit_code == 0
    assert lab.leftovers(NAME) == []
