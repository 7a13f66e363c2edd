"""Configurations as text, and the way from text to specification."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import InputError

SEED = """\
model_args:
  vllm_model:
    model-tag: /models/Qwen2.5-7B-Instruct
    tensor-parallel-size: 1
    gpu-memory-utilization: 0.90
    port: 4567
    action-args:
      - trust-remote-code
      - enable-chunked-prefill
deploy:
  command-line-mode: true
  models:
    vllm_model:
      num_gpus: 1
"""

LISTED = """\
- serve_id: vllm_model
  engine: vllm
  engine_args:
    model: /models/Qwen2.5-7B-Instruct
    tensor_parallel_size: 1
    gpu_memory_utilization: 0.90
    port: 4567
    trust_remote_code: true
"""

EXPERIMENT = """\
defaults:
  - _self_
  - serve: qwen2.5_7b
experiment:
  exp_name: qwen2.5_7b
  exp_dir: outputs/${experiment.exp_name}
  task: {type: serve, backend: vllm, entrypoint: null}
  runner: {hostfile: null}
  envs:
    CUDA_VISIBLE_DEVICES: 0,1,2,3
    CUDA_DEVICE_MAX_CONNECTIONS: 1
action: run
hydra:
  run:
    dir: ${experiment.exp_dir}/hydra/${now:%Y}
"""

Load = Callable[..., ServeSpec]


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")


def load(text: str, *overrides: str, folder: Path, name: str | None = None, **environ: str) -> ServeSpec:
    """Return the specification of one file, `qwen.yaml`."""
    write(folder, {"qwen.yaml": text})
    return load_spec(folder / "qwen.yaml", overrides, name, environ)


def faults(text: str, *overrides: str, folder: Path, **environ: str) -> list[str]:
    """Return the faults of one file, without the folder's name, lines and columns."""
    with pytest.raises(InputError) as raised:
        load(text, *overrides, folder=folder, **environ)
    return [unplaced(str(fault), folder) for fault in raised.value.faults]


def unplaced(text: str, folder: Path) -> str:
    """Return a message without the folder's name, lines and columns."""
    return re.sub(r"(\.yaml):\d+:\d+(?=: )", r"\1", text.replace(f"{folder}/", ""))
