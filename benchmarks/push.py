"""Time `push` to lab hosts with shaped links beside rsync, one after another and to all at the same time.

The operator is a lab host, too: its uplink is as narrow as theirs. As root, with rsync.

python -m benchmarks.push [--hosts 8] [--mbit 200] [--size 128] [--rounds 3] [--no-rsync] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.environments.build import mounts
from tests.lab import Host, Lab

REPOSITORY = Path(__file__).parent.parent
TARGET = 1.5
"""The time for all hosts may be so many times that for one host."""
PLACE = "/srv/pushed"
MODEL = "/dev/shm/model"


class Bench:
    """A lab, and the commands that are run on its operator's host."""

    def __init__(self, lab: Lab, size: int) -> None:
        *self.hosts, self.operator = lab.hosts
        self._lab = lab
        self._all = lab.inventory(lab.slot.directory / "all.yaml", self.hosts)
        self._one = lab.inventory(lab.slot.directory / "one.yaml", self.hosts[:1])
        for host in self.hosts:
            host.run("mount -t tmpfs tmpfs /srv")  # disks of one machine are one disk
        self.operator.run(f"mkdir {MODEL} && head -c {size}M /dev/urandom > {MODEL}/model.safetensors")
        self.operator.run(f"echo '{{}}' > {MODEL}/config.json")

    def push(self, hosts: list[Host]) -> float:
        """Return the seconds of `push` to one host or to all."""
        inventory = self._one if len(hosts) == 1 else self._all
        python = REPOSITORY / ".venv/bin/python"
        return self._time(
            f"cd {REPOSITORY} && {python} -m flagscale_deploy push -q {MODEL} {PLACE} -i {inventory}", hosts
        )

    def rsync(self, hosts: list[Host], *, together: bool) -> float:
        """Return the seconds of rsync from the operator to each host."""
        ssh = f"ssh -F none -o IdentityFile={self._lab.identity_file} -o UserKnownHostsFile={self._lab.known_hosts}"
        lines = [f"rsync -a -e '{ssh}' {MODEL}/ root@{host.address}:{PLACE}/" for host in hosts]
        return self._time((" & " if together else " && ").join(lines) + (" & wait" if together else ""), hosts)

    def _time(self, command: str, hosts: list[Host]) -> float:
        """Run a command on the operator's host, with nothing on the others; require that everything came."""
        for host in self.hosts:
            host.run(f"rm -rf {PLACE}")
        began = time.monotonic()
        self.operator.run(command, timeout=1800)
        took = time.monotonic() - began
        wanted = self.operator.run(f"sha256sum < {MODEL}/model.safetensors").stdout
        for host in hosts:
            assert host.run(f"sha256sum < {PLACE}/model.safetensors").stdout == wanted, (
                f"{host.name} has a different file"
            )
        return took

    def push_again(self) -> float:
        """Return the seconds of a push where everything is there already."""
        python = REPOSITORY / ".venv/bin/python"
        began = time.monotonic()
        self.operator.run(f"cd {REPOSITORY} && {python} -m flagscale_deploy push -q {MODEL} {PLACE} -i {self._all}")
        return time.monotonic() - began


def measure(hosts: int, mbit: float, size: int, rounds: int, rsync: bool) -> dict[str, list[float]]:
    """Return the seconds of each way, in rounds; rsync to many takes long and is measured once."""
    with Lab(hosts=hosts + 1, mounts=[REPOSITORY, *mounts(REPOSITORY / ".venv")]) as lab:
        bench = Bench(lab, size)
        for host in lab.hosts:
            host.rate(mbit)
        ways: dict[str, Callable[[], float]] = {
            "push to one host": lambda: bench.push(bench.hosts[:1]),
            f"push to {hosts} hosts": lambda: bench.push(bench.hosts),
            "the same again": bench.push_again,
        }
        seconds_of: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                seconds_of[name].append(way())
        if rsync:
            seconds_of["rsync to one host"] = [bench.rsync(bench.hosts[:1], together=False) for _ in range(rounds)]
            seconds_of[f"rsync to {hosts}, in parallel"] = [bench.rsync(bench.hosts, together=True)]
            seconds_of[f"rsync to {hosts}, one after another"] = [bench.rsync(bench.hosts, together=False)]
        return seconds_of


def main(argv: list[str]) -> int:
    """Measure, print the times, and return 1 if the target is missed."""
    options = argparse.ArgumentParser(prog="benchmarks.push", description=__doc__)
    options.add_argument("--hosts", type=int, default=8)
    options.add_argument("--mbit", type=float, default=200)
    options.add_argument("--size", type=int, default=128, help="MiB")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--no-rsync", action="store_true")
    options.add_argument("--json", type=Path)
    arguments = options.parse_args(argv)
    seconds_of = measure(arguments.hosts, arguments.mbit, arguments.size, arguments.rounds, not arguments.no_rsync)
    single = statistics.median(seconds_of["push to one host"])
    sys.stdout.write(f"{arguments.size} MiB, links of {arguments.mbit:g} Mbit/s, load {os.getloadavg()[0]:.1f}\n")
    for name, seconds in seconds_of.items():
        median = statistics.median(seconds)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        sys.stdout.write(f"{name:32} {median:7.2f} s  ({spread})  {median / single:5.2f} ×\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(seconds_of, indent=2) + "\n")
    return 0 if statistics.median(seconds_of[f"push to {arguments.hosts} hosts"]) <= TARGET * single else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
