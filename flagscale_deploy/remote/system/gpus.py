"""The GPUs of a host and who uses them, as nvidia-smi says."""

from __future__ import annotations

import os
import pwd
import re
import time
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from flagscale_deploy.remote.system import subprocesses
from flagscale_deploy.remote.system.background import Beside
from flagscale_deploy.remote.system.proc import Process

SECONDS = 15.0
"""Without persistence mode the driver loads on each call, which takes seconds on a host of eight GPUs."""

FIELDS = ("index", "uuid", "name", "memory.total", "memory.used", "driver_version")
EXTRAS = ("ecc.errors.uncorrected.volatile.total", "persistence_mode", "mig.mode.current")
"""What not every driver knows: MIG came with 450."""
APPS = "--query-compute-apps=gpu_uuid,pid,used_memory"
FORMAT = "--format=csv,noheader,nounits"

_UNKNOWN = re.compile(r'Field "([\w.]+)" is not a valid field to query')
"""Said on standard output, of the first such field, with exit status 2."""


class Answers(NamedTuple):
    """What nvidia-smi said: of its GPUs, by `FIELDS` and the `extras` that the driver knows, and of their users."""

    devices: subprocesses.Ended
    extras: Tuple[str, ...]
    apps: subprocesses.Ended


class Seen(NamedTuple):
    """What nvidia-smi answered. Without an NVIDIA driver package on the host there are no GPUs and no error."""

    gpus: List[Dict[str, Any]]
    gpu_error: Optional[str]
    driver_version: Optional[str]


def ask() -> Optional[Answers]:
    """Run nvidia-smi, for GPUs and for processes at the same time; None where there is no nvidia-smi."""
    command = _which("nvidia-smi")
    if command is None:
        return None
    apps = Beside(subprocesses.run, [command, APPS, FORMAT], SECONDS)
    devices, extras = _ask_devices(command)
    return Answers(devices, extras, apps.result())


def see(answers: Optional[Answers], processes: Iterable[Process]) -> Seen:
    """The GPUs in the shape of `observation.Gpu`, with user, command and marker of the processes that are on them."""
    if answers is None:
        return Seen([], None, None)
    gpus = parse_devices(answers.devices.stdout, answers.extras)
    attach(gpus, parse_apps(answers.apps.stdout), {process.pid: process for process in processes})
    drivers = [gpu.pop("driver_version") for gpu in gpus]
    return Seen(gpus, error_of(answers.devices, answers.extras), next(iter(drivers), None))


def parse_devices(answer: str, extras: Sequence[str] = EXTRAS) -> List[Dict[str, Any]]:
    """Reads lines of `FIELDS` and `extras`; lines of another shape (error texts) are passed over."""
    gpus = []
    for line in answer.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(FIELDS) + len(extras) and values[0].isdigit():
            index, uuid, name, total, used, driver = values[: len(FIELDS)]
            memory = {"memory_total_mib": _number(total) or 0, "memory_used_mib": _number(used) or 0}
            condition = _condition(dict(zip(extras, values[len(FIELDS) :])))
            identity = {"index": int(index), "uuid": uuid, "name": name, "driver_version": _text(driver)}
            gpus.append({**identity, **memory, **condition})
    return gpus


def parse_apps(answer: str) -> List[Dict[str, Any]]:
    """Reads `gpu_uuid, pid, used` lines."""
    apps = []
    for line in answer.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and fields[1].isdigit():
            apps.append({"gpu_uuid": fields[0], "pid": int(fields[1]), "memory_mib": _number(fields[2]) or 0})
    return apps


def attach(gpus: List[Dict[str, Any]], apps: List[Dict[str, Any]], processes: Dict[int, Process]) -> None:
    """Gives each GPU its `processes`; one that /proc doesn't show (another pid namespace's) has pid and memory only."""
    for gpu in gpus:
        gpu["processes"] = [
            {"pid": app["pid"], "memory_mib": app["memory_mib"], **_whose(processes.get(app["pid"]))}
            for app in apps
            if app["gpu_uuid"] == gpu["uuid"]
        ]


def error_of(answer: subprocesses.Ended, extras: Sequence[str] = EXTRAS) -> Optional[str]:
    """What nvidia-smi complained of, None if it did not. It prints its complaints on standard output."""
    if answer.code is None:
        return f"nvidia-smi did not answer within {SECONDS:.0f} s"
    if answer.code == 0:
        return None
    said = [line.strip() for line in (answer.stdout + "\n" + answer.stderr).splitlines() if line.strip()]
    complaint = " ".join(line for line in said if not parse_devices(line, extras))
    return complaint or f"nvidia-smi ended with exit status {answer.code}"


def user_of(uid: int) -> str:
    """A user's name, or the number of one who has none here (a container's)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _ask_devices(command: str) -> Tuple[subprocesses.Ended, Tuple[str, ...]]:
    """Asks for all fields, and again without the one that the driver doesn't know, as long as there is one."""
    extras = tuple(EXTRAS)  # type: Tuple[str, ...]
    while True:
        answer = subprocesses.run([command, "--query-gpu=" + ",".join(FIELDS + extras), FORMAT], SECONDS)
        unknown = _UNKNOWN.search(answer.stdout) if answer.code else None
        if unknown is None or unknown.group(1) not in extras:
            return answer, extras
        extras = tuple(each for each in extras if each != unknown.group(1))


def _condition(extras: Dict[str, str]) -> Dict[str, Any]:
    """What a GPU says of itself; None for `[N/A]` (no ECC memory, no MIG) and what it wasn't asked for."""
    errors, persistence, mig = (extras.get(each, "") for each in EXTRAS)
    switch = {"Enabled": True, "Disabled": False}
    return {"ecc_uncorrected": _number(errors), "persistence": switch.get(persistence), "mig": switch.get(mig)}


def _whose(process: Optional[Process]) -> Dict[str, Any]:
    if process is None:
        return {"user": "", "command": "", "run": "", "since": None}
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    since = booted + process.start_ticks / os.sysconf("SC_CLK_TCK")
    return {"user": user_of(process.uid), "command": process.command, "run": process.marker, "since": since}


def _number(text: str) -> Optional[int]:
    """A count; None for `[N/A]`, `[Not Supported]` and the like."""
    return int(text) if text.isdigit() else None


def _text(text: str) -> Optional[str]:
    return None if text.startswith("[") else text


def _which(command: str) -> Optional[str]:
    """Where a command is on PATH. (shutil, which knows too, imports three compressors.)"""
    places = (os.path.join(each, command) for each in os.get_exec_path())
    return next((each for each in places if os.path.isfile(each) and os.access(each, os.X_OK)), None)
