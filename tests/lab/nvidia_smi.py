"""Stand-in for nvidia-smi: reports the GPUs that `state`, in the directory that is its first argument, lists.

Answers `-L`, `--query-gpu=FIELDS` and `--query-compute-apps=FIELDS` with `--format=csv[,noheader][,nounits]`, in the
words and with the exit statuses of driver 580. Runs on hosts: standard library only, and as little of it as can be:
what nvidia-smi does in a driver, this does on cores that all hosts share.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]

NO_GPU, NO_DRIVER, BAD_ARGUMENT = 6, 9, 2
MIB = " MiB"


def main(directory: str, argv: list[str]) -> int:
    with open(os.path.join(directory, "state"), encoding="utf-8") as file:
        state = eval(file.read())  # a literal, as repr wrote it: json would take longer than all the rest
    if state["error"] is not None:
        return answer([state["error"]], NO_DRIVER)
    if not state["gpus"]:
        return answer(["No devices were found"], NO_GPU)
    options = dict(word.partition("=")[::2] for word in argv)
    form = options.get("--format", "").split(",")
    if "-L" in options or "--list-gpus" in options:
        return answer([f"GPU {i}: {gpu['name']} (UUID: {uuid(i)})" for i, gpu in enumerate(state["gpus"])])
    if "--query-gpu" in options:
        rows = [gpu_row(i, gpu, state) for i, gpu in enumerate(state["gpus"])]
        return answer_table(options["--query-gpu"], rows, form)
    if "--query-compute-apps" in options:
        rows = [process_row(process, state["gpus"]) for process in state["processes"]]
        return answer_table(options["--query-compute-apps"], rows, form)
    if argv:
        return answer([f"Invalid combination of input arguments: {' '.join(argv)}"], BAD_ARGUMENT)
    driver = state["gpus"][0]["driver"]
    return answer([f"NVIDIA-SMI {driver}    Driver Version: {driver}    CUDA Version: 13.0"])


def answer(lines: list[str], status: int = 0) -> int:
    text = "".join(line + "\n" for line in lines)
    sys.stdout.write(text)
    if status == 0:
        remember(text)
    return status


def remember(text: str) -> None:
    """Leave an answer where the command finds it when it is asked the same again."""
    path = os.path.join(sys.argv[1], "said " + " ".join(sys.argv[2:]))
    try:
        with open(f"{path} {os.getpid()}", "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(f"{path} {os.getpid()}", 0o644)  # programs have umask 077, and other users ask as well
        os.replace(f"{path} {os.getpid()}", path)
    except OSError:  # words that make no file name, or a user who may not write here
        return


def uuid(index: int) -> str:
    """Each host's GPUs are others; nodes of a lab have names that end in a number."""
    node = int("".join(filter(str.isdigit, os.uname().nodename)) or "0")
    return f"GPU-{node % 10**8:08d}-0000-0000-0000-{index:012d}"


def bus(index: int) -> str:
    return f"00000000:{index + 1:02X}:00.0"


def gpu_row(index: int, gpu: Row, state: Row) -> Row:
    count = len(state["gpus"])
    total, used = gpu["memory_mib"], gpu["used_mib"]
    name = {"name": gpu["name"], "gpu_name": gpu["name"]}
    identity = {"index": index, "count": count, "uuid": uuid(index), "gpu_uuid": uuid(index), "pci.bus_id": bus(index)}
    memory = {"memory.total": f"{total}{MIB}", "memory.used": f"{used}{MIB}", "memory.free": f"{total - used}{MIB}"}
    condition = {
        "driver_version": gpu["driver"],
        "compute_cap": "9.0",
        "compute_mode": "Default",
        "persistence_mode": switch(gpu["persistence"]),
        "mig.mode.current": switch(gpu["mig"]),
        "utilization.gpu": "0 %",
        "temperature.gpu": 40,
        "power.draw": "75.00 W",
        "ecc.errors.uncorrected.volatile.total": "[N/A]" if gpu["ecc_uncorrected"] is None else gpu["ecc_uncorrected"],
    }
    values = {**name, **identity, **memory, **condition}
    return {field: value for field, value in values.items() if field not in state["unknown"]}


def switch(value: bool | None) -> str:
    return "[N/A]" if value is None else "Enabled" if value else "Disabled"


def process_row(process: Row, gpus: list[Row]) -> Row:
    index = process["gpu"]
    used = f"{process['used_mib']}{MIB}"
    return {
        "pid": process["pid"],
        "process_name": process["name"],
        "name": process["name"],
        "used_memory": used,
        "used_gpu_memory": used,
        "gpu_uuid": uuid(index),
        "gpu_bus_id": bus(index),
        "gpu_name": gpus[index]["name"],
    }


def answer_table(fields: str, rows: list[Row], form: list[str]) -> int:
    names = [name.strip() for name in fields.split(",")]
    unknown = [name for name in names if rows and name not in rows[0]]
    if unknown:
        return answer([f'Field "{unknown[0]}" is not a valid field to query.'], BAD_ARGUMENT)
    header = [] if "noheader" in form else [", ".join(names)]
    lines = [", ".join(str(row[name]) for name in names) for row in rows]
    return answer(header + ([without_units(line) for line in lines] if "nounits" in form else lines))


def without_units(line: str) -> str:
    return ", ".join(value.removesuffix(MIB).removesuffix(" %").removesuffix(" W") for value in line.split(", "))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
