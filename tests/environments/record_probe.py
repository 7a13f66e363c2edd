"""Record what the probe finds on this machine, healthy and with real faults, for tests/unit/checks/recorded.

The machine needs real vLLM and Ray; the GPU is a stand-in.

python -m tests.environments.record_probe

With the hosts' environment built. What names this machine is taken out; a fault is kept as the fields that it changes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flagscale_deploy.config.spec import ModelSpec, ServeSpec
from flagscale_deploy.deploy.probe_hosts import observe
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.fleet import Fleet
from tests.environments import build
from tests.lab import Gpu, GpuProcess
from tests.lab.gpus import install

FILE = Path(__file__).parents[1] / "unit/checks/recorded/host.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 988097824\n"
OF_THIS_MACHINE = ("hostname", "boot_id", "interfaces", "default_address", "hostname_addresses", "ports", "runs",
                   "locks", "deployments", "foreign_ray")  # fmt: skip
ANOTHER: dict[str, Any] = {
    "hostname": "gpu01",
    "boot_id": "boot-gpu01",
    "interfaces": [{"name": "eth0", "addresses": ["10.0.0.1"], "mtu": 1500, "up": True, "speed": None}],
    "default_address": "10.0.0.1",
    "hostname_addresses": ["10.0.0.1"],
}
PATH = os.environ["PATH"]
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)
SOUND = Gpu()
MOVING = ("clock", "asked_at", "memory_available", "disk_free", "tmp_free", "shm_free", "resolver_seconds")
"""Fields that differ between two looks at a sound host."""


@dataclass(frozen=True)
class Fault:
    """Something to do to a copy of the model, keys of the host, or what nvidia-smi says."""

    name: str
    check: str
    act: Callable[[Path], object] = lambda _: None
    host: dict[str, str] = field(default_factory=dict)
    state: str = "failed"
    gpu: Gpu = SOUND
    error: str | None = None
    processes: tuple[GpuProcess, ...] = ()


def edit(**keys: Any) -> Callable[[Path], object]:
    """Set keys of config.json."""

    def act(model: Path) -> None:
        config = model / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | keys))

    return act


def weights(model: Path) -> Path:
    return model / "model.safetensors"


FAULTS = (
    Fault("weights are a Git LFS pointer", "model-weights", lambda model: weights(model).write_text(POINTER)),
    Fault("weights are cut off", "model-weights",
          lambda model: weights(model).write_bytes(weights(model).read_bytes()[:-1000])),
    Fault("weights are empty", "model-weights", lambda model: weights(model).write_bytes(b"")),
    Fault("one of four parts is there", "model-weights",
          lambda model: weights(model).rename(model / "model-00001-of-00004.safetensors")),
    Fault("weights are a web page", "model-weights", lambda model: weights(model).write_text("<!doctype html><html>")),
    Fault("the model is not there", "model-path", shutil.rmtree),
    Fault("config.json is not there", "model-path", lambda model: (model / "config.json").unlink()),
    Fault("config.json is a Git LFS pointer", "model-path", lambda model: (model / "config.json").write_text(POINTER)),
    Fault("the tokenizer is not there", "model-tokenizer", lambda model: (model / "tokenizer.json").unlink()),
    Fault("the chat template is not there", "model-tokenizer", lambda model: (model / "chat_template.jinja").unlink(),
          state="warning"),
    Fault("the model knows fewer positions", "model-length", edit(max_position_embeddings=256)),
    Fault("the model brings code", "model-code",
          edit(model_type="ours", auto_map={"AutoConfig": "configuration_ours.OursConfig"})),
    Fault("the environment is not there", "environment", host={"venv": "/nowhere"}),
    Fault("a hook fails", "environment", host={"before_start": "module load cuda/13"}),
    Fault("the environment has no Ray and no vLLM", "ray-installed", host={"venv": sys.prefix}),
    Fault("its driver does not answer", "gpu-driver", error=NO_DRIVER),
    Fault("somebody uses its GPU", "gpu-busy", gpu=Gpu(used_mib=40000),
          processes=(GpuProcess(0, os.getpid(), 40000, "python3"),)),
    Fault("its GPU is in use by what can't be seen", "gpu-busy", gpu=Gpu(used_mib=40000)),
    Fault("its GPU had memory errors", "gpu-ecc", gpu=Gpu(ecc_uncorrected=3)),
    Fault("its driver unloads between uses", "gpu-persistence", gpu=Gpu(persistence=False), state="warning"),
    Fault("its GPU is split", "gpu-mig", gpu=Gpu(mig=True)),
    Fault("its GPU is too small", "model-memory", gpu=Gpu("a small one", 400)),
)  # fmt: skip


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        healthy = _look(Path(folder) / "tiny", Fault("", ""))
        recorded = [(fault, _look(Path(folder) / "tiny", fault)) for fault in FAULTS]
    faults = [
        {"name": fault.name, "check": fault.check, "state": fault.state,
         "changed": {key: seen[key] for key in seen if key not in MOVING and seen[key] != healthy[key]}}
        for fault, seen in recorded
    ]  # fmt: skip
    FILE.write_text(json.dumps({"host": healthy, "faults": faults}, indent=1) + "\n", encoding="utf-8")
    return 0


def _look(model: Path, fault: Fault) -> dict[str, Any]:
    """Return the facts of this machine, with a copy of the tiny model that the fault is done to."""
    environment, tiny = build.node_environment(), build.tiny_model()
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(tiny, model, ignore=shutil.ignore_patterns(".*"))
    fault.act(model)
    commands = model.parent / "bin"
    commands.mkdir(exist_ok=True)
    install(commands, [fault.gpu], fault.processes, fault.error)
    os.environ["PATH"] = f"{commands}:{PATH}"
    host = Host("gpu01", "gpu01", connection="local", **{"venv": str(environment), **fault.host})  # type: ignore[arg-type]
    asked = ServeSpec("checked", (ModelSpec("tiny", str(model), num_gpus=1),))
    with Fleet((host,)) as fleet:
        facts = observe(fleet, asked, timeout=60.0)["gpu01"].facts
    assert facts is not None, fault.name
    recorded = {key: value for key, value in asdict(facts).items() if key not in OF_THIS_MACHINE} | ANOTHER
    text = json.dumps(recorded).replace(str(environment), "/opt/vllm").replace(str(model), "/models/tiny")
    text = re.sub(r"GPU-\d{8}", "GPU-00000001", text).replace(sys.executable, "python3")
    content: dict[str, Any] = json.loads(text)
    return content


if __name__ == "__main__":
    sys.exit(main())
