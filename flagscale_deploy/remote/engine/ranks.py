"""Tell the part that a process plays in a run, by the name that it gives itself.

Ray's daemons are programs of their own; a Ray worker is called `ray::<actor>` and what it does (`ray::RayWorkerProc`,
`ray::RayWorkerWrapper.execute_method`), vLLM's processes `VLLM::EngineCore`, `VLLM::Worker_TP0` (measured with Ray 2.60
and vLLM 0.32).
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, Optional

from flagscale_deploy.remote.system.proc import Process

PARTS = (
    ("raylet", re.compile(r"(\S*/)?raylet(\s|$)")),
    ("gcs_server", re.compile(r"(\S*/)?gcs_server(\s|$)")),
    ("rank", re.compile(r"ray::RayWorker|VLLM::Worker|VLLM::RayWorker")),
    ("engine-core", re.compile(r"VLLM::EngineCore")),
)
"""Without the first two a Ray node is none; without the others an engine is none."""

_OF_RAY = re.compile(
    r"(\S*/)?(raylet|gcs_server)(\s|$)|ray::(IDLE|Dashboard|\w*Agent)|ray-dashboard-"
    r"|\S+ .*/ray/(dashboard|autoscaler|_private)/"
)


def part(process: Process) -> Optional[str]:
    """Return raylet, gcs_server, rank or engine-core; None for all else."""
    return next((name for name, pattern in PARTS if pattern.match(process.command)), None)


def of_engine(process: Process) -> bool:
    """Return whether a process is no daemon of Ray's: those have something to do even where nothing goes on."""
    return _OF_RAY.match(process.command) is None


def count(processes: Iterable[Process]) -> Dict[str, int]:
    """Return how many play each part; those that nobody plays are left out."""
    counts = {}  # type: Dict[str, int]
    for process in processes:
        name = part(process)
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
    return counts


def title(process: Process) -> str:
    """Return what to call a process: its name without path, arguments and method (`ray::RayWorkerProc`)."""
    words = process.command.split() or [str(process.pid)]
    return words[0].rsplit("/", 1)[-1].split(".")[0]
