"""A lab as a test holds it: brought up with `with`, gone afterwards, and proven to be gone."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tests.lab.boot import connect, hidden, start, wait_for_sshd
from tests.lab.demolition import left_of, reap
from tests.lab.host import Host
from tests.lab.keepers import ForeignKeeper, Keeper, LabError, OwnKeeper
from tests.lab.leftovers import Leftover, Process, inspect
from tests.lab.permission import obstacle
from tests.lab.slots import STATE, Slot, registry
from tests.lab.state import LabState

THIS_PROCESS = -1


class Lab:
    """Hosts `node1` … `nodeN` on a network of their own. Needs root; takes about 0.1 s a host.

    `gpus` is what `nvidia-smi` counts on each host (0: there is no such command). `mounts` are directories of the
    machine (environments, models, interpreters) that every host sees at their own path, read-only; whatever lies
    outside /root, /tmp, /run and /dev/shm is visible anyway. The lab ends with the process `owner`, by default this
    one, also when that is killed; with None it stays until `close`.
    """

    def __init__(
        self, hosts: int = 1, gpus: int = 0, mounts: Iterable[str | Path] = (), *, owner: int | None = THIS_PROCESS
    ) -> None:
        if reason := obstacle():
            raise LabError(reason)
        directories = [os.path.abspath(mount) for mount in mounts]
        if absent := [directory for directory in directories if not os.path.isdir(directory)]:
            raise LabError(f"only directories can be mounted in hosts, and these are none: {', '.join(absent)}")
        wish = {
            "hosts": hosts,
            "gpus": gpus,
            "mounts": directories,
            "owner": os.getpid() if owner == THIS_PROCESS else owner,
        }
        self._keeper: Keeper = OwnKeeper(wish)
        self.mounts = directories
        self._booted: list[subprocess.Popen[str]] = []
        self._hold(self._keeper.state)

    @classmethod
    def attach(cls, slot: int) -> Lab:
        """Return a lab that is already up, by its slot's number. Raises LabError if there is none."""
        state = LabState.of(Slot(slot))
        if state is None:
            raise LabError(f"no lab in slot {slot}")
        lab = cls.__new__(cls)
        lab._keeper = ForeignKeeper(state)
        lab.mounts, lab._booted = [], []
        lab._hold(state)
        return lab

    def _hold(self, state: LabState) -> None:
        self.state = state
        self.slot = state.slot
        self.hosts = [Host(state.slot, index, host) for index, host in enumerate(state.hosts)]

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all hosts and wait until they are gone; closing twice is fine.

        Raises LabError naming every process, link or mount that remains.
        """
        self._keeper.end()
        for process in self._booted:
            process.kill()
            process.wait()
        try:
            with registry():
                reap()  # a keeper that was killed could not clean up
        except OSError as error:
            raise LabError(str(error)) from error
        if left := left_of(host.state for host in self.hosts):
            raise LabError(f"{self.slot.bridge} was taken down and left processes {left}")

    def power_on(self, index: int) -> Host:
        """Boot a host that was killed: its disks are as they were, pids begin anew, and so does the boot id.

        `hosts[index]` is it from then on. It dies with this process.
        """
        process = start(self.slot, index, hidden(self.mounts))
        self._booted.append(process)
        booted = connect(self.slot, index, process)
        assert process.stdout is not None
        process.stdout.close()
        states = tuple(booted if at == index else host.state for at, host in enumerate(self.hosts))
        self.state = replace(self.state, hosts=states)
        (self.slot.directory / STATE).write_text(self.state.dumps())
        self.hosts[index] = host = Host(self.slot, index, booted)
        wait_for_sshd(self.slot, index, process)
        # The kernel is the machine's, and so would its boot id be.
        host.run(f"echo {uuid.uuid4()} >/run/boot_id && mount --bind /run/boot_id /proc/sys/kernel/random/boot_id")
        return host

    @property
    def known_hosts(self) -> Path:
        """A known_hosts file with the key of every host, by address."""
        return self.slot.directory / "known_hosts"

    @property
    def identity_file(self) -> Path:
        """The private key that lets root into every host."""
        return self.slot.directory / "key"

    def inventory(self, path: Path, hosts: Sequence[Host] | None = None, **variables: Any) -> Path:
        """Write an inventory in Ansible's form, of all hosts or of these, with `variables` for all; returns `path`."""
        connection = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.identity_file),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.known_hosts}",
        }
        listed = {host.name: {"ansible_host": host.address} for host in self.hosts if hosts is None or host in hosts}
        path.write_text(yaml.safe_dump({"all": {"vars": connection | variables, "hosts": listed}}, sort_keys=False))
        return path

    def processes(self, deployment: str) -> list[Process]:
        """Return the living processes of a deployment on all hosts: to be remembered for `leftovers`."""
        return [process for host in self.hosts if host.alive for process in inspect(host, deployment).processes]

    def leftovers(self, deployment: str, processes: Sequence[Process] = ()) -> list[Leftover]:
        """Everything of a deployment that living hosts still hold: processes, listening ports, directories.

        A process is the deployment's if it carries its marker, shares a session with one that does, or descends from
        either; those in `known` are looked for whatever they look like now. The lab uses none of the product's code
        for this. After `stop` the state directory is to be expected: filter by `kind`.
        """
        return [left for host in self.hosts if host.alive for left in inspect(host, deployment, processes).leftovers()]
