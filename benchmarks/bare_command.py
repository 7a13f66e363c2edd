"""Run `true` on every host of an inventory with Paramiko threads: the bare command that others are compared with.

python -m benchmarks.bare_command HOSTS_YAML
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import paramiko

from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.inventory.model import Host


def main(path: str) -> None:
    """Run the command on all hosts at once; exit with 1 if it fails on any."""
    hosts = load_inventory(path).hosts
    with ThreadPoolExecutor(len(hosts)) as pool:
        statuses = list(pool.map(_true, hosts))
    sys.exit(any(statuses))


def _true(host: Host) -> int:
    client = paramiko.SSHClient()
    client.load_host_keys(str(host.known_hosts))
    client.connect(
        host.address,
        host.port or 22,
        host.user,
        key_filename=host.identity_file,
        allow_agent=False,
        look_for_keys=False,
    )
    try:
        channel = client.get_transport().open_session()  # type: ignore[union-attr]  # it is connected
        channel.exec_command("true")
        return channel.recv_exit_status()
    finally:
        client.close()


if __name__ == "__main__":
    main(sys.argv[1])
