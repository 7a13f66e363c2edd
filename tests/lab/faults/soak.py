"""The process of the soak test: `python -m tests.lab.faults.soak HOSTS CONFIG ROUNDS LOOK_AT…`.

It starts and stops the deployment ROUNDS times, and cleans up. After the rounds named it prints a line of JSON about
itself (open descriptors, threads, children, resident bytes), and waits for a line before it goes on.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from pathlib import Path

from flagscale_deploy import api
from flagscale_deploy.api.request import Options, load_request


def main(inventory: str, config: str, rounds: int, look_at: set[int]) -> None:
    for turn in range(1, rounds + 1):
        request = load_request(Options(inventory=inventory, config=config), environ={"HOME": os.environ["HOME"]})
        assert api.run(request).up is not None
        assert api.status(request).state == "ready"
        assert api.stop(request).exit_code == 0
        if turn in look_at:
            sys.stdout.write(json.dumps(held()) + "\n")
            sys.stdout.flush()
            sys.stdin.readline()
    assert api.cleanup(request).exit_code == 0


def held() -> dict[str, object]:
    """Return what this process holds after a garbage collection."""
    gc.collect()
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "children": children,
        "resident": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
    }


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), set(map(int, sys.argv[4:])))
