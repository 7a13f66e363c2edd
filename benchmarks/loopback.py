"""Hosts behind one sshd: any number of addresses of 127.0.0.0/8, in a network of its own.

`python -m benchmarks.loopback MODULE ARGUMENTS…` runs a module where that network is the only one.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flagscale_deploy.support.deadline import Deadline

SSHD = "/usr/sbin/sshd"
ISOLATED = "FSD_BENCH_ISOLATED"
PLACES = "/var/tmp"
CONFIG = """
Port 22
ListenAddress 0.0.0.0
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 2000
MaxSessions 100
SetEnv HOME={home}
Subsystem sftp internal-sftp
"""


def isolated(module: str, arguments: list[str]) -> int:
    """Run `python -m module` in a network namespace of its own; return its exit status. Needs root."""
    words = shlex.join([sys.executable, "-m", module, *arguments])
    argv = ["unshare", "--net", "sh", "-c", f"ip link set lo up && exec {words}"]
    return subprocess.run(argv, env={**os.environ, ISOLATED: "1"}, check=False).returncode


def is_isolated() -> bool:
    """Return whether this process runs in such a network."""
    return os.environ.get(ISOLATED) == "1"


@contextmanager
def hosts(folder: Path, count: int) -> Iterator[Path]:
    """Run an sshd that serves `count` hosts during the block; yield an inventory in Ansible's form.

    The hosts have processes and a /tmp of their own, so `folder` has to lie elsewhere (PLACES).
    """
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    home = folder / "home"
    home.mkdir()
    config = folder / "sshd_config"
    config.write_text(CONFIG.format(folder=folder, home=home))
    os.makedirs("/run/sshd", exist_ok=True)
    with (folder / "sshd.log").open("w") as log:
        own = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
        argv = [*own, "sh", "-c", f"mount -t tmpfs tmpfs /tmp && exec {SSHD} -D -e -f {config}"]
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_for_banner()
        yield inventory(folder, count)
    finally:
        server.kill()  # and with it, by --kill-child, sshd and all of its sessions
        server.wait(10)


def inventory(folder: Path, count: int) -> Path:
    """Write an inventory of the first `count` hosts, and a known_hosts file with them; return the inventory."""
    public = (folder / "host_key.pub").read_text().split()
    known_hosts = folder / "known_hosts"
    addresses = [address(index) for index in range(count)]
    known_hosts.write_text("".join(f"{host} {public[0]} {public[1]}\n" for host in addresses))
    path = folder / f"hosts-{count}.yaml"
    entries = "".join(f"    h{index:04d}: {{ansible_host: {host}}}\n" for index, host in enumerate(addresses))
    path.write_text(
        "all:\n  vars:\n    ansible_user: root\n    ansible_python_interpreter: /usr/bin/python3\n"
        f"    ansible_ssh_private_key_file: {folder}/key\n"
        f"    ansible_ssh_common_args: -o UserKnownHostsFile={known_hosts}\n  hosts:\n{entries}"
    )
    return path


def address(index: int) -> str:
    """Return the address of a host by its number."""
    return f"127.7.{index // 250}.{index % 250 + 1}"


def _wait_for_banner() -> None:
    deadline = Deadline(10)
    while subprocess.run(["sh", "-c", "ssh-keyscan -T 2 127.7.0.1 2>/dev/null | grep -q ."], check=False).returncode:
        if deadline.expired:
            raise TimeoutError("sshd does not come up")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(isolated(sys.argv[1], sys.argv[2:]))
