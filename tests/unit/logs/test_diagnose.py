"""A rank that died on a worker's host is that host's, by the address by which Ray knows it, in a folder and live."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.logs import diagnose_ends, diagnose_folder
from tests.fakes import FakeFleet, Output
from tests.unit.deploy.given import answering

ENGINE, WORKER = "logs/vllm_serve_q_0.log", "logs/ray_worker.log"
DIED = (
    "(EngineCore pid=599) ERROR 10-02 10:26:00 [ray_executor_v2.py:522] RayWorkerProc rank=[1] died unexpectedly,"
    " shutting down executor.",
    "(raylet) A worker died or was killed while executing a task by an unexpected system error. Lease ID: 02"
    " Worker IP address: 10.0.0.2 Worker port: 12406 Worker PID: 4648 Worker exit type: SYSTEM_ERROR",
)
STARTED = "2026-10-02 10:20:00,760\tINFO scripts.py:1234 -- {}"
ADDRESSES = ("Local node IP: 10.0.0.2", "\x1b[37mLocal node IP\x1b[39m: \x1b[1m10.0.0.2\x1b[22m")
"""As `ray start` writes it to a file, and with colours."""


def live(lines: dict[str, dict[str, tuple[str, ...]]], _folder: Path) -> Diagnosis | None:
    def follow(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        for file, logged in lines[host.name].items():
            yield {"file": file, "lines": list(logged)}

    return diagnose_ends(FakeFleet(answering(follow=follow), list(lines)), "qwen")


def on_disk(lines: dict[str, dict[str, tuple[str, ...]]], folder: Path) -> Diagnosis | None:
    for host, files in lines.items():
        for file, logged in files.items():
            (folder / host / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / host / file).write_text("\n".join(logged))
    return diagnose_folder(folder)


@pytest.mark.parametrize("address", ADDRESSES, ids=["plain", "colours"])
@pytest.mark.parametrize("look", [live, on_disk])
def test_a_rank_that_died_is_told_of_its_own_host(look: Any, address: str, tmp_path: Path) -> None:
    lines = {"gpu01": {ENGINE: DIED}, "gpu02": {WORKER: (STARTED.format(address),)}}
    diagnosis = look(lines, tmp_path)
    assert (diagnosis.host, diagnosis.signature) == ("gpu02", "worker-died")


@pytest.mark.parametrize("kind", ["file", "folder", "logs"])
def test_a_link_in_the_folder_is_not_followed(tmp_path: Path, kind: str) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "run"
    (outside / "gpu01/logs").mkdir(parents=True)
    (outside / "gpu01" / ENGINE).write_text("\n".join(DIED))
    (folder / "gpu01").mkdir(parents=True)
    if kind == "file":
        (folder / "gpu01/logs").mkdir()
        (folder / "gpu01" / ENGINE).symlink_to(outside / "gpu01" / ENGINE)
    elif kind == "folder":
        (folder / "gpu01/logs").symlink_to(outside / "gpu01/logs")
    else:
        (folder / "plan.json").write_text("{}")
        (folder / "logs").symlink_to(outside)
    assert diagnose_folder(outside) is not None
    assert diagnose_folder(folder) is None


def test_holes_of_files_take_no_time(tmp_path: Path) -> None:
    """A host sends a hole of a terabyte in a line, in each of 100,000 files."""
    died = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.\n"
    logs = tmp_path / "gpu01/logs"
    logs.mkdir(parents=True)
    for number in range(100):
        with (logs / f"vllm_serve_q_{number}.log").open("wb") as file:
            file.truncate((1 << 40) - (1 << 20))
            file.seek(0, os.SEEK_END)
            file.write(f"{died if number == 50 else 'INFO'}".encode())
    began = time.monotonic()
    diagnosis = diagnose_folder(tmp_path)
    assert time.monotonic() - began < 10  # a zero at a time: 20 s
    assert diagnosis is not None
    assert diagnosis.file == "vllm_serve_q_50.log"
