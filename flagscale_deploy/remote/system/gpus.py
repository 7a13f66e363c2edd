"""List the GPUs of a host and who uses them, by nvidia-smi."""

from __future__ import annotations

import os
import pwd
import re
import time
from typing import TYPE_CHECKING, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from flagscale_deploy.remote.system import subprocesses
from flagscale_deploy.remote.system.background import Background
from flagscale_deploy.remote.system.proc import Process

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import ProbedGpu, ProbedGpuProcess

SECONDS = 15.0
"""Without persistence mode the driver loads on each call, which takes seconds on a host of eight GPUs."""

BUSY_SHARE = 0.1
"""A GPU with more of its memory in use is busy, even if no process can be seen (containers hide theirs)."""

FIELDS = ("index", "uuid", "name", "memory.total", "memory.used", "driver_version")
EXTRAS = ("ecc.errors.uncorrected.volatile.total", "persistence_mode", "mig.mode.current", "utilization.gpu")
"""What not every driver knows: MIG came with 450."""
APPS = "--query-compute-apps=gpu_uuid,pid,used_memory"
FORMAT = "--format=csv,noheader,nounits"

_UNKNOWN = re.compile(r'Field "([\w.]+)" is not a valid field to query')
"""Said on standard output, of the first such field, with exit status 2."""
_COUNT = re.compile(r"[0-9]{1,18}")


class Answers(NamedTuple):
    """What nvidia-smi said: of its GPUs, by `FIELDS` and the `extras` that the driver knows, and of their users."""

    devices: subprocesses.Ended
    extras: Tuple[str, ...]
    apps: subprocesses.Ended


class Device(NamedTuple):
    """A GPU, and the version of the driver that told of it."""

    gpu: ProbedGpu
    driver_version: Optional[str]


class App(NamedTuple):
    """A compute process on a GPU."""

    gpu_uuid: str
    pid: int
    memory_mib: int


class Seen(NamedTuple):
    """What nvidia-smi answered. Without an NVIDIA driver package on the host there are no GPUs and no error."""

    gpus: List[ProbedGpu]
    gpu_error: Optional[str]
    driver_version: Optional[str]


def ask() -> Optional[Answers]:
    """Run nvidia-smi, for GPUs and for processes at the same time; None where there is no nvidia-smi."""
    command = _which("nvidia-smi")
    if command is None:
        return None
    apps = Background(subprocesses.run, [command, APPS, FORMAT], SECONDS)
    devices, extras = _ask_devices(command)
    return Answers(devices, extras, apps.result())


def see(answers: Optional[Answers], processes: Iterable[Process]) -> Seen:
    """Return the GPUs, with user, command and marker of the processes that are on them."""
    if answers is None:
        return Seen([], None, None)
    devices = parse_devices(answers.devices.stdout, answers.extras)
    attach(devices, parse_apps(answers.apps.stdout), {process.pid: process for process in processes})
    driver = next((device.driver_version for device in devices), None)
    return Seen([device.gpu for device in devices], error_of(answers.devices, answers.extras), driver)


def parse_devices(answer: str, extras: Sequence[str] = EXTRAS) -> List[Device]:
    """Read lines of `FIELDS` and `extras`; lines of another shape (error texts) are passed over."""
    devices = []
    for line in answer.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(FIELDS) + len(extras) and _number(values[0]) is not None:
            devices.append(_device(values[: len(FIELDS)], dict(zip(extras, values[len(FIELDS) :]))))
    return devices


def parse_apps(answer: str) -> List[App]:
    """Read `gpu_uuid, pid, used` lines."""
    apps = []
    for line in answer.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and _number(fields[1]) is not None:
            apps.append(App(fields[0], int(fields[1]), _number(fields[2]) or 0))
    return apps


def attach(devices: List[Device], apps: List[App], processes: Dict[int, Process]) -> None:
    """Give each GPU its `processes`; one that /proc doesn't show (another pid namespace's) has pid and memory only."""
    for device in devices:
        device.gpu["processes"] = [
            _describe(app, processes.get(app.pid)) for app in apps if app.gpu_uuid == device.gpu["uuid"]
        ]


def error_of(answer: subprocesses.Ended, extras: Sequence[str] = EXTRAS) -> Optional[str]:
    """Return what nvidia-smi complained of, None if it did not. It prints its complaints on standard output."""
    if answer.code is None:
        return f"nvidia-smi did not answer within {SECONDS:.0f} s"
    if answer.code == 0:
        return None
    lines = [line.strip() for line in (answer.stdout + "\n" + answer.stderr).splitlines() if line.strip()]
    complaint = " ".join(line for line in lines if not parse_devices(line, extras))
    return complaint or f"nvidia-smi ended with exit status {answer.code}"


def user_of(uid: int) -> str:
    """Return a user's name, or the number of one who has none here (a container's)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _ask_devices(command: str) -> Tuple[subprocesses.Ended, Tuple[str, ...]]:
    """Ask for all fields, and again without the one that the driver doesn't know, as long as there is one."""
    extras = tuple(EXTRAS)  # type: Tuple[str, ...]
    while True:
        answer = subprocesses.run([command, "--query-gpu=" + ",".join(FIELDS + extras), FORMAT], SECONDS)
        unknown = _UNKNOWN.search(answer.stdout) if answer.code else None
        if unknown is None or unknown.group(1) not in extras:
            return answer, extras
        extras = tuple(extra for extra in extras if extra != unknown.group(1))


def _device(fields: Sequence[str], extras: Mapping[str, str]) -> Device:
    """Return a GPU without its processes; None for `[N/A]` (no ECC memory, no MIG) and what it wasn't asked for."""
    index, uuid, name, total, used, driver = fields
    errors, persistence, mig, utilization = (extras.get(extra, "") for extra in EXTRAS)
    switch = {"Enabled": True, "Disabled": False}
    gpu: ProbedGpu = {
        "index": int(index),
        "uuid": uuid,
        "name": name,
        "memory_total_mib": _number(total) or 0,
        "memory_used_mib": _number(used) or 0,
        "processes": [],
        "ecc_uncorrected": _number(errors),
        "persistence": switch.get(persistence),
        "mig": switch.get(mig),
        "utilization": _number(utilization),
    }
    return Device(gpu, _text(driver))


def _describe(app: App, process: Optional[Process]) -> ProbedGpuProcess:
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return {
        "pid": app.pid,
        "memory_mib": app.memory_mib,
        "user": user_of(process.uid) if process else "",
        "command": process.command if process else "",
        "run": process.marker if process else "",
        "since": booted + process.start_ticks / os.sysconf("SC_CLK_TCK") if process else None,
    }


def _number(text: str) -> Optional[int]:
    """Return a count; None for `[N/A]`, `[Not Supported]` and the like."""
    return int(text) if _COUNT.fullmatch(text) else None


def _text(text: str) -> Optional[str]:
    return None if text.startswith("[") else text


def _which(command: str) -> Optional[str]:
    """Return where a command is on PATH, as shutil does, which imports three compressors."""
    places = (os.path.join(folder, command) for folder in os.get_exec_path())
    return next((place for place in places if os.path.isfile(place) and os.access(place, os.X_OK)), None)
