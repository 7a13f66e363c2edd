"""The serve YAML of a tiny Qwen2 on CPU, in the form FlagScale published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

IN_ONE_PROCESS = {"distributed-executor-backend": "uni"}
"""Flags of an engine with one rank, in the engine's process: vLLM is imported once less, 4 of 16 core-seconds."""

WITHOUT_DASHBOARD = "deploy.ray.dashboard=false"
"""Ray without its dashboard: three core-seconds less for each head. Others start it, as for users."""


def environment(model: Path) -> dict[str, Any]:
    """Return the variables that vLLM is started with; tests/environments/tiny_qwen2.py says what `.start` is."""
    return {
        "VLLM_CPU_KVCACHE_SPACE": 1,
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": 1,
        "VLLM_CACHE_ROOT": str(model / ".start"),
        "PYTHONPATH": str(model / ".start"),
    }


def write(
    path: Path, model: Path, *, port: int, gpus: int, flags: dict[str, Any] | None = None, forks: bool = False
) -> Path:
    """Write a configuration whose deployment is named like the file; returns its path. `flags` go to vLLM as well.

    With `forks`, only an engine's server imports vLLM; for users, each of its processes does.
    """
    envs = environment(model)
    if forks:
        envs["FORK_ENGINE"] = 1
    if flags and IN_ONE_PROCESS.items() <= flags.items():
        envs["VLLM_ENABLE_V1_MULTIPROCESSING"] = 0  # on CPU, vLLM takes "uni" for "mp" otherwise
    content = {
        "experiment": {"exp_name": path.stem, "envs": envs},
        "model_args": {
            "vllm_model": {
                "model-tag": str(model),
                "served-model-name": "tiny",
                "max-model-len": 512,
                "max-num-seqs": 4,
                "port": port,
                "override-generation-config": {"temperature": 0},  # random weights, the same words every time
                "action-args": ["enforce-eager"],
                **(flags or {}),
            }
        },
        "deploy": {"command-line-mode": True, "models": {"vllm_model": {"num_gpus": gpus}}},
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
