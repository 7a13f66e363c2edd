"""Let a host carry another rank of its group than the one that it was planned with, or none.

A spare holds no GPU while it stands by. Before it is given a rank it takes its GPUs, as `run` does. It looks at the
other groups of the deployment (a lock), at the records of other deployments, and at what nvidia-smi sees.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Sequence

from flagscale_deploy.remote.deployment import lockfile, record, state
from flagscale_deploy.remote.deployment.reservation import alone, conflicts
from flagscale_deploy.remote.system import gpus, json_files, proc
from flagscale_deploy.remote.system.background import Background

if TYPE_CHECKING:
    import argparse

    from flagscale_deploy.remote.messages.record import Record

PATH_SECONDS = 5.0


class Spare:
    """What this host needs for a rank of the group. `holds`: whether its GPUs are the group's."""

    def __init__(self, options: argparse.Namespace, *, holds: bool) -> None:
        self._deployment, self._host = state.name_of(options.state.parent), state.name_of(options.state)
        self._run, self._locks = options.run, options.state / "restart"
        self._gpus = [int(index) for index in options.gpus.split(",") if index]
        self._path = options.model_path
        self._words: Dict[str, List[str]] = json_files.parse_object(options.rank_words)
        self._holds = holds
        self._descriptors: List[int] = []

    def has(self, rank: int) -> bool:
        """Return whether the group has such a rank for this host."""
        return str(rank) in self._words

    def command(self, words: Sequence[str], rank: int) -> List[str]:
        """Return the command line with what is this rank's in place of what is another's."""
        own = {word for other in self._words.values() for word in other}
        return [word for word in words if word not in own] + self._words.get(str(rank), [])

    def claim(self) -> str:
        """Take the GPUs for a rank of the group; return why that is not possible, "" if they are taken."""
        try:
            why = self._missing_path() or self._lock() or self._reserve() or self._in_use()
        except (OSError, RuntimeError, lockfile.UnusableError) as error:
            why = str(error)
        if why:
            self.release()
        return why

    def release(self) -> None:
        """Give the GPUs back, if they are held."""
        if self._holds:
            with contextlib.suppress(OSError):
                record.update(self._deployment, self._host, self._without)
                self._holds = False
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _missing_path(self) -> str:
        if not self._path:
            return ""
        try:
            there = Background(os.path.exists, os.path.expanduser(self._path)).result(PATH_SECONDS)
        except TimeoutError:
            return "%s does not answer within %g s" % (self._path, PATH_SECONDS)
        return "" if there else "there is no %s" % self._path

    def _lock(self) -> str:
        """Lock each GPU against other groups of the deployment."""
        for index in self._gpus if not self._descriptors else []:
            descriptor = lockfile.take(Path(self._locks) / ("gpu-%d.lock" % index))
            if descriptor is None:
                return "GPU %d: another group of the deployment has it" % index
            self._descriptors.append(descriptor)
        return ""

    def _reserve(self) -> str:
        """Take the GPUs in the deployment's record, if no other deployment has one of them."""
        with alone():
            wanted: Record = {**(record.read(self._deployment, self._host) or {}), "gpus": self._gpus, "ports": {}}
            taken = conflicts(
                {
                    "deployment": self._deployment,
                    "host": self._host,
                    "run_id": self._run,
                    "record": wanted,
                    "exclusive": ["gpus"],
                }
            )
            for conflict in taken:
                return "%s: %s has it" % (conflict["what"], conflict["by"])
            record.update(self._deployment, self._host, self._with)
            self._holds = True
        return ""

    def _in_use(self) -> str:
        """Return which of the GPUs is in use, or is not there; "" also where there is no nvidia-smi."""
        answers = gpus.ask()
        if answers is None:
            return ""
        seen = gpus.see(answers, proc.scan())
        if seen.gpu_error:
            return seen.gpu_error
        present = {gpu["index"]: gpu for gpu in seen.gpus}
        for index in self._gpus:
            gpu = present.get(index)
            if gpu is None:
                return "it has no GPU %d" % index
            users = ["%s (pid %d)" % (user["command"] or "a process", user["pid"]) for user in gpu["processes"]]
            if users or gpu["memory_used_mib"] > gpus.BUSY_SHARE * gpu["memory_total_mib"]:
                what = ", ".join(users) or "%d MiB by processes that cannot be seen" % gpu["memory_used_mib"]
                return "GPU %d is in use: %s" % (index, what)
        return ""

    def _with(self, before: Record) -> Record:
        return {**before, "gpus": sorted({*before.get("gpus", []), *self._gpus})}

    def _without(self, before: Record) -> Record:
        return {**before, "gpus": [index for index in before.get("gpus", []) if index not in self._gpus]}
