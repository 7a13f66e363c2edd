"""Records what probes of lab hosts find, healthy and with the faults of `breaking`, for tests/unit/checks/recorded.

python -m tests.lab.product.record

As root, with the hosts' environment built: they have real vLLM and Ray, and stand-in GPUs. What names this machine is
taken out. A fault is kept as the fields that it changes, by host.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.environments import build
from tests.lab import Lab
from tests.lab.product.breaking import FAULTS, Fault, Stage
from tests.lab.product.breaking.stage import BROKEN, CONFIGURATION, MODEL

FILE = Path(__file__).parents[2] / "unit/checks/recorded/lab.json"
OF_THE_INVENTORY = {"gpus", "node_ip", "interface"}
"""Variables that a check compares with facts: such a fault is not in the facts alone."""
NOT_IN_FACTS = {"data-network", "bandwidth", "engine-arguments", "ports", "placement", "distinct-hosts"}
MOVING = ("clock", "asked_at", "memory_available", "disk_free", "tmp_free", "shm_free", "resolver_seconds", "ports")
"""Fields that differ between two looks at a sound host."""
MOVED_BY = {"memory": "memory_available", "disk": "disk_free", "tmp": "tmp_free", "shared-memory": "shm_free",
            "resolver": "resolver_seconds", "clock": "clock"}  # fmt: skip


def main() -> int:
    environment, model = build.node_environment(), build.tiny_model()
    with tempfile.TemporaryDirectory() as folder, Lab(hosts=4, gpus=1, mounts=build.mounts(environment)) as lab:
        _give_model(lab, model)
        words = {str(environment): "/opt/vllm", folder: "/home/operator"}
        healthy = _facts(lab, Path(folder), environment, None)
        found = [_record(fault, healthy, _facts(lab, Path(folder), environment, fault)) for fault in FAULTS]
    hosts = {name: {**facts, "boot_id": f"boot-{name}"} for name, facts in healthy.items()}
    text = json.dumps({"hosts": hosts, "faults": [each for each in found if each is not None]}, indent=1)
    for word, other in words.items():
        text = text.replace(word, other)
    FILE.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(f"{sum(each is not None for each in found)} faults in {FILE}\n")
    return 0


def _facts(lab: Lab, folder: Path, environment: Path, fault: Fault | None) -> Any:
    host = next(host for host in lab.hosts if host.name == BROKEN)
    with Stage(lab, folder, {"good": environment}, host) as stage:
        if fault is not None:
            try:
                fault.inject(stage)
            except KeyError:  # it needs an environment that there is none of
                return None
            variables = {name for each in stage.variables.values() for name in each}
            words = fault.words or stage.configuration != CONFIGURATION or variables & OF_THE_INVENTORY
            if words or fault.check in NOT_IN_FACTS:
                return None
        answer = stage.check().json
    return {name: each.get("facts") for name, each in answer["hosts"].items()}


def _record(fault: Fault, healthy: Any, found: Any) -> Any:
    if found is None or not all(found.values()):
        return None
    changed = {
        name: {
            key: value
            for key, value in facts.items()
            if value != healthy[name][key]
            and (key not in MOVING or (MOVED_BY.get(fault.check) == key and name == BROKEN))
        }
        for name, facts in found.items()
    }
    changed = {name: fields for name, fields in changed.items() if fields}
    if not changed:
        return None
    if fault.check == "clock":
        changed[BROKEN]["asked_at"] = found[BROKEN]["asked_at"]
    return {"name": fault.name, "check": fault.check, "state": fault.state, "host": fault.host,
            "remedy": fault.remedy, "changed": changed}  # fmt: skip


def _give_model(lab: Lab, model: Path) -> None:
    for host in lab.hosts:
        host.run(f"mkdir -p {MODEL}")
        for path in model.iterdir():
            if not path.name.startswith("."):
                (host.directory / "tmp" / path.name).write_bytes(path.read_bytes())
                host.run(f"mv /tmp/{path.name} {MODEL}/ && chmod 644 {MODEL}/{path.name}")


if __name__ == "__main__":
    sys.exit(main())
