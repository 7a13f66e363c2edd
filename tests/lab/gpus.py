"""The GPUs that a host's stand-in `nvidia-smi` reports."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PROGRAM = Path(__file__).with_name("nvidia_smi.py")
COMMAND = """#!/bin/sh
# Stand-in for nvidia-smi. What was asked before is answered as before, which takes a tenth of the time.
here=${0%%/*}/.nvidia-smi/%s
[ -f "$here/said $*" ] && exec cat "$here/said $*"
exec python3 -I -S "$here/program" "$here" "$@"
"""


@dataclass(frozen=True)
class Gpu:
    """One GPU as `nvidia-smi` shows it. The default is an idle H100; None is what a GPU doesn't have (`[N/A]`)."""

    name: str = "NVIDIA H100 80GB HBM3"
    memory_mib: int = 81559
    used_mib: int = 0
    ecc_uncorrected: int | None = 0
    persistence: bool | None = True
    mig: bool | None = False
    driver: str = "580.159.03"


@dataclass(frozen=True)
class GpuProcess:
    """A compute process on the GPU with index `gpu`; `pid` is the host's own."""

    gpu: int
    pid: int
    used_mib: int = 0
    name: str = "python3"


def install(
    directory: Path,
    gpus: int | Sequence[Gpu],
    processes: Sequence[GpuProcess] = (),
    error: str | None = None,
    unknown: Sequence[str] = (),
) -> None:
    """Make `nvidia-smi` in `directory` (a place on PATH) report these GPUs; 0 takes the command away.

    With `error`, the command prints it and exits with status 9, as nvidia-smi does where the driver doesn't answer.
    An empty sequence is a host with a driver and no GPU. `unknown` are the fields that this driver can't be asked for.
    """
    command, answers = directory / "nvidia-smi", directory / ".nvidia-smi"
    if gpus == 0 and error is None:
        command.unlink(missing_ok=True)
        return
    listed = [Gpu()] * gpus if isinstance(gpus, int) else gpus
    state = {"gpus": [asdict(gpu) for gpu in listed], "processes": [asdict(process) for process in processes]}
    fresh = answers / uuid.uuid4().hex
    fresh.mkdir(parents=True)
    (fresh / "state").write_text(repr({**state, "error": error, "unknown": list(unknown)}))
    (fresh / "program").write_text(PROGRAM.read_text())
    _replace(command, COMMAND % fresh.name)  # what was there before stays: a probe may be in the middle of it


def _replace(path: Path, text: str) -> None:
    """Whole or not at all: a probe may be reading."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.chmod(0o755)
    os.replace(beside, path)
