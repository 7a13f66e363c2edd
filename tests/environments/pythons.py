#!/usr/bin/env python3
"""Run the unit tests under every Python of this machine that is supported and is not the one that runs this.

    pythons.py              all of them
    pythons.py 3.8 3.13     these

The operator's side supports 3.10 to 3.13; under one of them what touches files, sockets and signals runs without what
only Linux has. What runs on hosts (`remote/`) supports 3.8 as well: its unit tests are run under it, and its component
tests with host programs that are run by it.
Each Python gets a virtual environment in the cache, without the package: the tests import this clone's. All Pythons
run at the same time, in one process each: half of the time of the unit tests is spent waiting, and more of that of
component tests.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.environments.cache import entry, recipe, say  # noqa: E402 (run as a file)

OPERATOR = ("3.10", "3.11", "3.12", "3.13")
HOST = "3.8"
SWEEPS = (
    "api/test_hostile_replies.py", "checks/test_any_facts.py", "checks/test_hostile_facts.py", "cli/test_canary.py",
    "cli/test_day_two.py", "config/test_any_input.py", "config/test_many_faults.py", "diagnosis/test_find.py", "docs",
    "inventory/test_many_groups.py", "logs/test_redact.py", "plan/test_large_runs.py", "plan/test_many_replicas.py",
    "recipes/test_any_document.py", "support/test_aliases.py", "support/test_sandbox.py", "test_architecture.py",
    "test_connections_on_hosts.py", "test_cut_secrets.py", "test_hostile_input.py", "test_patterns.py",
    "test_reading_on_hosts.py", "test_secrets_in_plenty.py", "test_texts.py", "transport/test_replies.py",
)  # fmt: skip
"""What takes most of the time, or reads our own sources and pages: run under the Python of all other tests only."""
NOT_LINUX = "3.12"
"""The Python that runs some of the tests without what only Linux has, as a Mac's would."""
PORTABLE = ("cli", "remote/push", "transport")
"""These: folders of tests that touch files, sockets and signals. Others are about values."""
LINUX_ALONE = (
    "remote/push/test_store.py", "remote/push/test_validate.py", "transport/test_hostile_server.py",
    "transport/test_key_exchange.py",
)  # fmt: skip
"""Of these folders, what runs on hosts, and more of what a server may send over connections like all others."""
WITHOUT_LINUX = ("-p", "tests.environments.elsewhere")
TYPES_OF_MESSAGES = "tests/component/remote/test_messages.py"
"""Types, which the type checker reads: no program of a host runs there."""
NOT_FOR_TESTS = re.compile(r"(ansible-core|build|mypy|ruff|types-.*)\b")
FOR_HOST_TESTS = re.compile(r"(hypothesis|pytest.*)\b")
THREE_PROCESSES = ("-n", "3", "--dist", "worksteal")
"""Tests that wait most of their time; one that takes long holds up none that follow it."""
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
UNIT, UNIT_OF_HOSTS, COMPONENT_OF_HOSTS = "tests/unit", "tests/unit/remote", "tests/component/remote"


def find(version: str) -> Path | None:
    """Return a Python of this version that can make virtual environments: on PATH, or of pyenv."""
    return next((path for path in _candidates(version) if _is(path, version)), None)


def environment(python: Path, version: str) -> Path:
    """Return a virtual environment with what the tests of this version import; it is built if need be."""
    wanted = requirements(version)

    def build(path: Path) -> None:
        say(f"building {path}: what the unit tests need, for Python {version}")
        subprocess.run([python, "-m", "venv", path], check=True, stdout=sys.stderr)
        pip = ("-m", "pip", "install", "-qq", "--disable-pip-version-check")
        subprocess.run([path / "bin/python", *pip, *wanted], check=True, stdout=sys.stderr)

    return entry(f"python-{version}-{recipe([], str(python), *wanted)}", build)


def requirements(version: str) -> list[str]:
    """Return the lines of setup.cfg that the tests of this version need."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    tools = setup["options.extras_require"]["dev"].split("\n")
    if version == HOST:  # of cryptography the last that does not warn of Python 3.8
        return ["cryptography<46", *filter(FOR_HOST_TESTS.match, tools)]
    lines = setup["options"]["install_requires"].split("\n") + [tool for tool in tools if not NOT_FOR_TESTS.match(tool)]
    return [line for line in lines if line and not line.startswith("#")]


def run_tests(python: Path, version: str) -> tuple[int, str]:
    """Run the tests with that Python; return the exit status of pytest, the highest of several, and its output."""
    built = environment(python, version) / "bin/python"
    if version == NOT_LINUX:
        return _worst(_run(built, *words) for words in _portable_first())
    if version != HOST:
        return _run(built, UNIT, *_without(SWEEPS))
    with ThreadPoolExecutor(2) as pool:  # the component tests wait most of their time
        # tests/conftest.py needs the operator's Python.
        units = pool.submit(_run, built, UNIT_OF_HOSTS, f"--confcutdir={UNIT_OF_HOSTS}")
        words = (COMPONENT_OF_HOSTS, f"--ignore={TYPES_OF_MESSAGES}", *THREE_PROCESSES)
        components = pool.submit(_run, Path(sys.executable), *words, FSD_HOST_PYTHON=str(python))
        return _worst([units.result(), components.result()])


def _portable_first() -> Iterator[tuple[str, ...]]:
    """Yield the arguments of two runs of pytest: of what is tried without what only Linux has, and of the rest."""
    yield (*WITHOUT_LINUX, *(f"{UNIT}/{folder}" for folder in PORTABLE), *_without((*SWEEPS, *LINUX_ALONE)))
    yield (UNIT, *(f"{UNIT}/{module}" for module in LINUX_ALONE), *_without((*SWEEPS, *PORTABLE)))


def _without(modules: Iterable[str]) -> Iterator[str]:
    return (f"--ignore={UNIT}/{module}" for module in modules)


def _worst(ended: Iterable[tuple[int, str]]) -> tuple[int, str]:
    """Return the highest exit status, and all output."""
    runs = list(ended)
    return max(status for status, _ in runs), "".join(output for _, output in runs)


def _run(python: Path, *words: str, **env: str) -> tuple[int, str]:
    """Run pytest in a folder of its own: what ends at the same time removes older runs' folders at the same time."""
    command = [str(python), *PYTEST, *words]
    with tempfile.TemporaryDirectory(prefix="fsd-unit-", ignore_cleanup_errors=True) as folder:
        given = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DEBUG_TEMPROOT": folder} | env
        ended = subprocess.run(
            command, cwd=ROOT, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    return ended.returncode, ended.stdout


def _candidates(version: str) -> Iterator[Path]:
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)
    yield from sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"), reverse=True)


def _is(path: Path, version: str) -> bool:
    """Whether it runs, as this version; a shim of pyenv may not."""
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    return done.returncode == 0 and done.stdout.strip() == version


def report(version: str) -> tuple[int, str]:
    """Return the exit status of the tests with a Python, 0 where there is none, and what to say of them."""
    python = find(version)
    if python is None:
        return 0, f"── Python {version}: not on this machine; skipped"
    began = time.monotonic()
    status, output = run_tests(python, version)
    seconds = time.monotonic() - began
    return status, f"{output}── Python {version} ({python}): exit status {status} after {seconds:.1f} s"


def main(words: list[str]) -> int:
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    versions = words or [version for version in (HOST, *OPERATOR) if version != own]
    failed = False
    with ThreadPoolExecutor(len(versions)) as pool:
        for status, text in pool.map(report, versions):
            say(text)
            failed |= bool(status)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
