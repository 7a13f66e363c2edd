"""Do what `run` does for a stage of its plan: connect to every host, send the scripts, run them, read the results.

python -m benchmarks.product_fan_out HOSTS_YAML [--more] [--leaks]

`--more` runs one more command on each; `--leaks` fails where a thread or a file descriptor is left at the end.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import zlib
from pathlib import Path

from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.messages.run import LAUNCH, LaunchArguments, LaunchReply
from flagscale_deploy.rendering.render import Templates
from flagscale_deploy.support.deadline import Deadline
from flagscale_deploy.transport.base import run
from flagscale_deploy.transport.fleet import Fleet
from flagscale_deploy.transport.remote_program import Program

DEPLOYMENT, RUN = "bench", "run-1"
TEMPLATE = Path(__file__).parent / "peers" / "hello.sh.j2"


def main(path: str, *, more: bool, leaks: bool) -> int:
    """Run the script on all hosts; return 1 if a host fails, or with `leaks` how much is left."""
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    templates = Templates({"hello.sh.j2": TEMPLATE.read_text()})
    with Fleet(load_inventory(path).hosts) as fleet:

        def work(host: Host) -> list[str]:
            return _launch(fleet, host, templates.render("hello.sh.j2", host=host.name, now=time.time), more)

        results = fleet.map(work)
    for name, lines in results.items():
        if lines != [f"hello from {name}"]:
            sys.stderr.write(f"{name}: {lines}\n")
            return 1
    return _left(before) if leaks else 0


def _launch(fleet: Fleet, host: Host, script: str, more: bool) -> list[str]:
    """Launch as `deploy/launch.py` does, except for Ray's temporary directory: these hosts share their /tmp."""
    args: LaunchArguments = {
        "deployment": DEPLOYMENT,
        "host": host.name,
        "run_id": RUN,
        "record": {"deployment": DEPLOYMENT},
        "files": {"scripts/hello.sh": (script, "700")},
        "script": "hello.sh",
        "role": "ray-worker",
        "detached": False,
        "timeout": 60,
        "session": f"{zlib.crc32(host.name.encode()):08x}",
    }
    answer: LaunchReply = {}
    connection = fleet.connection(host.name)
    with Program(connection, LAUNCH, args, timeout=300, cancelled=fleet.cancelled) as program:
        for message in program.messages():
            answer = {**answer, **message}
    if more:
        log = f"~/.flagscale-deploy/{DEPLOYMENT}/{host.name}/logs/hello.log"
        return run(connection, f"cat {log}", timeout=60).stdout.decode().splitlines()
    return answer["tail"]


def _left(before: tuple[int, int]) -> int:
    """Return how many threads and descriptors are new; wait for Paramiko's threads, which end within 0.1 s."""
    deadline = Deadline(5)
    while True:
        left = threading.active_count() - before[0] + len(os.listdir("/proc/self/fd")) - before[1]
        if not left or deadline.expired:
            return left
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], more="--more" in sys.argv, leaks="--leaks" in sys.argv))
