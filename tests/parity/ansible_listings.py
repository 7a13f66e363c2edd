"""Ansible's listings, made by forks of a process that has imported it: importing takes most of a listing's time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any


class Listings:
    """`listings(inventory, "--export")` is what `ansible-inventory --list` prints of it, less its dialect's name."""

    def __init__(self, folder: Path) -> None:
        # A configuration of the machine must not turn Ansible's defaults.
        (config := folder / ".ansible.cfg").touch()
        settings = {"ANSIBLE_CONFIG": str(config), "ANSIBLE_HOME": str(folder / ".ansible"), "LC_ALL": "C.UTF-8"}
        self._output = folder / "output", folder / "errors"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.parity.ansible_listings"], env={**os.environ, **settings},
            cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, inventory: Path, *options: str) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        words = ["ansible-inventory", "-i", str(inventory), "--list", *options]
        # In the directory of the inventory, since Ansible also reads group_vars/ of the working directory.
        self._process.stdin.write(json.dumps([words, str(inventory.parent), *map(str, self._output)]) + "\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline()
        output, errors = (path.read_text(encoding="utf-8") for path in self._output)
        assert status == "0\n", status + output + errors
        listing: dict[str, Any] = json.loads(output)
        assert listing != {"_meta": {"hostvars": {}}}, errors
        listing["_meta"].pop("profile", None)
        return listing

    def __enter__(self) -> Listings:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def main() -> None:
    """Read words, a directory and two files a line; answer with the exit status of the command."""
    from ansible.cli.inventory import InventoryCLI

    for line in sys.stdin:
        words, directory, output, errors = json.loads(line)
        child = os.fork()
        if child:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            sys.stdout.write(f"{status}\n")
            sys.stdout.flush()
            continue
        with ExitStack() as opened:
            for descriptor, path in ((1, output), (2, errors)):
                os.dup2(opened.enter_context(open(path, "w", encoding="utf-8")).fileno(), descriptor)
        os.chdir(directory)
        InventoryCLI.cli_executor(words)  # ends the process


if __name__ == "__main__":
    main()
