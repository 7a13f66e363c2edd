"""The GPUs of a host and who uses them, as nvidia-smi says."""

from __future__ import annotations

import pwd
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

from flagscale_deploy.remote import bounded
from flagscale_deploy.remote.proc import Process

SECONDS = 15.0
"""Without persistence mode the driver loads on each call, which takes seconds on a host of eight GPUs."""

DEVICES = "--query-gpu=index,uuid,name,memory.total,memory.used,driver_version"
APPS = "--query-compute-apps=gpu_uuid,pid,used_memory"
FORMAT = "--format=csv,noheader,nounits"


class Seen(NamedTuple):
    """What nvidia-smi answered. Without an NVIDIA driver package on the host there are no GPUs and no error."""

    gpus: List[Dict[str, Any]]
    gpu_error: Optional[str]
    driver_version: Optional[str]


def observe(processes: Iterable[Process]) -> Seen:
    """The GPUs in the shape of `observation.Gpu`, with user, command and marker of the processes that are on them."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return Seen([], None, None)
    with ThreadPoolExecutor(2) as pool:
        devices, apps = pool.map(lambda query: bounded.run([command, query, FORMAT], SECONDS), (DEVICES, APPS))
    gpus = parse_devices(devices.stdout)
    attach(gpus, parse_apps(apps.stdout), {process.pid: process for process in processes})
    drivers = [gpu.pop("driver_version") for gpu in gpus]
    return Seen(gpus, error_of(devices), next(iter(drivers), None))


def parse_devices(answer: str) -> List[Dict[str, Any]]:
    """Reads `index, uuid, name, total, used, driver` lines; lines of another shape (error texts) are passed over."""
    gpus = []
    for line in answer.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 6 and fields[0].isdigit():
            index, uuid, name, total, used, driver = fields
            memory = {"memory_total_mib": _number(total), "memory_used_mib": _number(used)}
            gpus.append({"index": int(index), "uuid": uuid, "name": name, **memory, "driver_version": _text(driver)})
    return gpus


def parse_apps(answer: str) -> List[Dict[str, Any]]:
    """Reads `gpu_uuid, pid, used` lines."""
    apps = []
    for line in answer.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and fields[1].isdigit():
            apps.append({"gpu_uuid": fields[0], "pid": int(fields[1]), "memory_mib": _number(fields[2])})
    return apps


def attach(gpus: List[Dict[str, Any]], apps: List[Dict[str, Any]], processes: Dict[int, Process]) -> None:
    """Gives each GPU its `processes`; one that /proc doesn't show (another pid namespace's) has pid and memory only."""
    for gpu in gpus:
        gpu["processes"] = [
            {"pid": app["pid"], "memory_mib": app["memory_mib"], **_whose(processes.get(app["pid"]))}
            for app in apps
            if app["gpu_uuid"] == gpu["uuid"]
        ]


def error_of(answer: bounded.Ended) -> Optional[str]:
    """What nvidia-smi complained of, None if it did not. It prints its complaints on standard output."""
    if answer.code is None:
        return f"nvidia-smi did not answer within {SECONDS:.0f} s"
    if answer.code == 0:
        return None
    said = [line.strip() for line in (answer.stdout + "\n" + answer.stderr).splitlines() if line.strip()]
    complaint = " ".join(line for line in said if not parse_devices(line))
    return complaint or f"nvidia-smi ended with exit status {answer.code}"


def user_of(uid: int) -> str:
    """A user's name, or the number of one who has none here (a container's)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _whose(process: Optional[Process]) -> Dict[str, str]:
    if process is None:
        return {"user": "", "command": "", "run": ""}
    return {"user": user_of(process.uid), "command": process.command, "run": process.marker}


def _number(text: str) -> int:
    """A count of MiB; 0 for `[N/A]`, `[Not Supported]` and the like."""
    return int(text) if text.isdigit() else 0


def _text(text: str) -> Optional[str]:
    return None if text.startswith("[") else text
