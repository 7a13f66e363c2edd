"""What hosts serve with where vLLM is not the point: a virtual environment with a stand-in for `vllm`."""

from __future__ import annotations

import json
import shutil
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.environments.build import mounts
from tests.lab import Host

HERE = Path(__file__).parent
VERSION = "0.0.stand.in"
RAY, TORCH = "2.60.0", "2.13.0"
PLACE = "/dev/shm/vllm-stand-in"


@dataclass(frozen=True)
class StandIn:
    """`environment` is for `venv:`; `command` is a directory for PATH, in front of an environment with real Ray."""

    environment: Path
    command: Path

    @property
    def mounts(self) -> list[Path]:
        return [*mounts(self.environment), self.command]


def build(path: Path, vllm: str = VERSION) -> StandIn:
    """Make the environment in an empty directory.

    Its metadata say that vLLM, Ray and PyTorch are installed; this Ray fails. Of vLLM there is also the package, which
    reads command lines and no more: every flag of vLLM 0.32 is known to it.
    """
    made = StandIn(make_environment(path / "environment", vllm=vllm), path / "command")
    made.command.mkdir()
    _program(made.command / "vllm", _vllm())
    return made


def make_environment(
    path: Path,
    *,
    vllm: str | None = VERSION,
    ray: str | None = RAY,
    torch: str | None = TORCH,
    python: str | None = None,
    all2all: str | None = "deep_ep",
) -> Path:
    """Return a virtual environment that claims to have these versions, None for what it does not have.

    `all2all` is the package of an all-to-all backend, which holds nothing.
    `python` is the version that its Python claims to be.
    """
    venv.create(path, symlinks=True)
    packages = next((path / "lib").glob("python*")) / "site-packages"
    for name, version in (("vllm", vllm), ("ray", ray), ("torch", torch)):
        if version is not None:
            metadata = packages / f"{name}-{version}.dist-info/METADATA"
            metadata.parent.mkdir()
            metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if vllm is not None:
        shutil.copytree(HERE / "vllm_package", packages / "vllm", ignore=shutil.ignore_patterns("__pycache__"))
        _program(path / "bin/vllm", _vllm())
    if ray is not None:
        _program(path / "bin/ray", "#!/bin/sh\necho 'ERROR: this Ray is a stand-in' >&2\nexit 7\n")
    if all2all is not None:
        (packages / all2all).mkdir()
        (packages / all2all / "__init__.py").touch()
    if python is not None:
        (packages / "version.pth").write_text(f"import sys; sys.version = '{python} (a stand-in)'\n")
    return path


def add_router(environment: Path) -> None:
    """Add a stand-in for vllm-router, which routes."""
    _program(environment / "bin/vllm-router", "#!/usr/bin/env python3\n" + (HERE / "router_stand_in.py").read_text())


def _vllm() -> str:
    return "#!/usr/bin/env python3\n" + (HERE / "vllm_stand_in.py").read_text()


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def given(host: Host, port: int) -> dict[str, Any]:
    """Return what the stand-in that serves on `port` was given: {argv, environ, pid, children}."""
    written: dict[str, Any] = json.loads(host.file(f"{PLACE}/{port}.json").read_text())
    return written


def is_started(host: Host, port: int) -> bool:
    """Whether a stand-in for this port has started; it may be loading still."""
    return host.file(f"{PLACE}/{port}.json").is_file()


def is_alive(host: Host, pid: int) -> bool:
    """Whether a process of a host lives; the pid is the host's own."""
    try:
        return "\nState:\tZ" not in host.file(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
