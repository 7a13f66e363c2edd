"""Time the same work on N hosts at once, by the product and by its peers. The hosts share this machine's cores.

python -m benchmarks.loopback benchmarks.fan_out [--quick] [--json FILE]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import loopback
from benchmarks.figures import Figure
from benchmarks.pairs import Timing, run_timed, time_side_by_side
from benchmarks.running import PRODUCT, PYTHON, ROOT, bench

SIZES = {8: 7, 32: 4, 64: 3, 128: 2}
"""Hosts, and rounds."""
MANY = 1000
REACHED = 2.6
"""The ratio that is reached with CPython on hosts that share our cores; see docs/internals/benchmarks.md."""
BARE, LAUNCH, EXEC, STATUS = "Paramiko threads: true", "scripts sent and run", "exec -- true", "status"
PS = "ps"
MORE, PYINFRA, ANSIBLE = "scripts sent and run, and a command", "pyinfra", "ansible-playbook"


def measure(quick: bool) -> list[Figure]:
    """Take all figures."""
    sizes = {8: 3, 32: 2} if quick else SIZES
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="fsd-bench-", dir=loopback.PLACES) as folder:
        place = Path(folder)
        with loopback.hosts(place, MANY):
            for hosts, rounds in sizes.items():
                figures += _beside_bare(place, hosts, rounds)
            if not quick:
                figures += _beside_peers(place, 32, 2)
                figures += _many(place)
    return figures


def _beside_bare(place: Path, hosts: int, rounds: int) -> list[Figure]:
    inventory = str(loopback.inventory(place, hosts))
    commands = {
        BARE: [PYTHON, "-m", "benchmarks.bare_command", inventory],
        EXEC: [*PRODUCT, "exec", "-q", "-i", inventory, "--", "true"],
        LAUNCH: [PYTHON, "-m", "benchmarks.product_fan_out", inventory],
        STATUS: [*PRODUCT, "status", "-q", "-i", inventory, "--name", "nothing"],
        PS: [*PRODUCT, "ps", "-q", "-i", inventory],
    }
    timings = _timed(commands, rounds, place)
    bare = timings[BARE].median
    figures = [Figure("fan-out", f"{BARE}, {hosts} hosts", bare, "s", detail=_spread(timings[BARE]))]
    for name, target in ((EXEC, None), (LAUNCH, 1.25), (STATUS, 1.25 if hosts == 32 else None)):
        against = f"{name} / {BARE}, {hosts} hosts"
        ratio = timings[name].median / bare
        figures.append(Figure("fan-out", against, ratio, "×", target, _spread(timings[name]), REACHED))
    ratio = timings[PS].median / timings[EXEC].median
    target = 1.5 if hosts in (32, 64) else None
    return [*figures, Figure("fan-out", f"{PS} / {EXEC}, {hosts} hosts", ratio, "×", target, _spread(timings[PS]))]


def _beside_peers(place: Path, hosts: int, rounds: int) -> list[Figure]:
    """Compare with `peers/`: render a template, send it, run it, run one more command."""
    inventory, peers = str(loopback.inventory(place, hosts)), ROOT / "benchmarks" / "peers"
    pyinfra_hosts = place / "pyinfra_hosts.py"
    settings = {"ssh_user": "root", "ssh_key": str(place / "key"), "ssh_known_hosts_file": str(place / "known_hosts")}
    entries = [(f"h{index:04d}", {"ssh_hostname": loopback.address(index), **settings}) for index in range(hosts)]
    pyinfra_hosts.write_text(f"hosts = {entries!r}\n")
    commands: dict[str, Sequence[str | Path]] = {
        MORE: [PYTHON, "-m", "benchmarks.product_fan_out", inventory, "--more"],
        PYINFRA: [_beside(PYTHON, "pyinfra"), "-y", pyinfra_hosts, peers / "pyinfra_deploy.py"],
        ANSIBLE: [_beside(PYTHON, "ansible-playbook"), "-f", str(hosts), "-i", inventory, peers / "playbook.yaml"],
    }
    timings = _timed(commands, rounds, place)
    return [
        Figure("fan-out", f"{MORE} / {name}, {hosts} hosts", timings[MORE].median / timings[name].median, "×", target,
               f"{_spread(timings[MORE])} / {_spread(timings[name])}")
        for name, target in ((PYINFRA, 0.4), (ANSIBLE, 0.1))
    ]  # fmt: skip


def _many(place: Path) -> list[Figure]:
    """Measure a thousand hosts, once. Raises RuntimeError where a thread or a descriptor is left."""
    inventory = str(loopback.inventory(place, MANY))
    argv = [PYTHON, "-m", "benchmarks.product_fan_out", inventory, "--leaks"]
    seconds, cpu, memory = run_timed(argv, cwd=ROOT, env=_environment(place))
    what = f"scripts sent and run, {MANY} hosts"
    return [
        Figure("fan-out", f"{what}: wall time", seconds, "s", detail="nothing left in the process"),
        Figure("fan-out", f"{what}: client's CPU a host", cpu / MANY * 1000, "ms", 6.0),
        Figure("fan-out", f"{what}: client's memory", memory / 1e6, "MB", 250.0),
    ]


def _timed(commands: Mapping[str, Sequence[str | Path]], rounds: int, place: Path) -> dict[str, Timing]:
    return time_side_by_side(commands, rounds, cwd=ROOT, env=_environment(place))


def _environment(place: Path) -> dict[str, str]:
    """Return a fresh environment; Ansible's modules keep their files in a home that is removed."""
    home = place / "operator"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    settings = {"ANSIBLE_HOST_KEY_CHECKING": "True", "ANSIBLE_HOME": str(home), "ANSIBLE_LOCALHOST_WARNING": "False"}
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", **settings}


def _beside(python: str, program: str) -> str:
    return str(Path(python).parent / program)


def _spread(timing: Timing) -> str:
    return f"{timing.median:.2f} s, {min(timing.seconds):.2f} to {max(timing.seconds):.2f}"


if __name__ == "__main__":
    sys.exit(bench(measure, sys.argv[1:]))
