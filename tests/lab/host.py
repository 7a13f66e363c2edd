"""One host of a lab, as a test handles it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import gpus, network
from tests.lab.gpus import Gpu, GpuProcess
from tests.lab.slots import Slot
from tests.lab.state import HostState

Completed = subprocess.CompletedProcess[str]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")


@dataclass(frozen=True)
class Host:
    """A running host. The machine and the lab's other hosts reach its address, nobody else."""

    slot: Slot
    index: int
    state: HostState

    @property
    def name(self) -> str:
        """`node1`, `node2`, …: its hostname, and its name in the lab's inventory."""
        return self.state.name

    @property
    def address(self) -> str:
        return self.state.address

    @property
    def directory(self) -> Path:
        """On the machine: the host's `home`, `tmp` and `console.log` (what its sshd says)."""
        return self.slot.directory / self.name

    def file(self, path: str) -> Path:
        """Return where the machine finds a file that the host's own processes find at this path, in /proc as well."""
        return Path(f"/proc/{self.state.pid}/root{path}")

    @property
    def alive(self) -> bool:
        return self.state.alive

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 60.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> Completed:
        """Run a command as root at the host's own console: no network, so it works with the cable cut.

        A string goes through bash. With `check`, a non-zero exit raises AssertionError with what the command printed.
        """
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        given = [f"{key}={value}" for key, value in (env or {}).items()]
        enter = ["nsenter", f"--target={self.state.pid}", *NAMESPACES, "--wdns=/root"]
        surroundings = ["env", "-i", f"PATH={PATH}", "HOME=/root", "USER=root", "LANG=C.UTF-8", *given]
        # The time limit has to hold inside: ending nsenter would leave the command running.
        return _run([*enter, *surroundings, "timeout", "-k", "1", str(timeout), *argv], timeout + 5, check, stdin)

    def ssh(self, command: str, *, timeout: float = 60.0, check: bool = True, stdin: str = "") -> Completed:
        """Run a command through the host's sshd, as an operator would."""
        return _run(["timeout", "-k", "1", str(timeout), *self.ssh_argv(), command], timeout + 5, check, stdin)

    def ssh_argv(self) -> list[str]:
        """Return the ssh command line that reaches this host; append a command, or nothing for a shell."""
        files = [f"-oIdentityFile={self.slot.directory}/key", f"-oUserKnownHostsFile={self.slot.directory}/known_hosts"]
        return ["ssh", "-Fnone", "-oBatchMode=yes", "-oConnectTimeout=10", *files, f"root@{self.address}"]

    def cut(self) -> None:
        """Pull the network cable. Whoever talks to the host hears nothing more, not even a refusal."""
        network.set_cable(self.slot.cable(self.index), up=False)

    def join(self) -> None:
        """Plug the cable in again."""
        network.set_cable(self.slot.cable(self.index), up=True)

    def kill(self) -> None:
        """Power loss: all processes are gone at once, and the host doesn't come back unless `Lab.power_on` boots it."""
        self.state.power_off()

    def rate(self, mbit: float | None) -> None:
        """Limit the link to `mbit` Mbit/s each way; None lifts the limit."""
        network.shape(self.slot.cable(self.index), self.state.pid, mbit)

    def set_gpus(
        self, listed: int | Sequence[Gpu], processes: Sequence[GpuProcess] = (), *, error: str | None = None
    ) -> None:
        """From now on `nvidia-smi` reports these GPUs and processes; see `gpus.install` for 0 and `error`."""
        gpus.install(self.directory / "sbin", listed, processes, error)


def _run(argv: Sequence[str], limit: float, check: bool, stdin: str) -> Completed:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=limit, env=os.environ, check=False)
    if check and done.returncode:
        shown = shlex.join(argv)
        raise AssertionError(f"exit status {done.returncode}: {shown}\n{done.stdout}{done.stderr}")
    return done
