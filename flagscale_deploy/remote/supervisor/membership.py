"""Join the group that a launch script names in the options of `supervise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable

from flagscale_deploy.remote.supervisor.follower import Follower
from flagscale_deploy.remote.supervisor.group import Group
from flagscale_deploy.remote.supervisor.leader import Leader
from flagscale_deploy.remote.system import files

if TYPE_CHECKING:
    import argparse

    from flagscale_deploy.remote.deployment.restart_permits import Files


def token_file(script: str) -> str:
    """Return where the token of the rank that a script starts lies, below the state directory (`group.token_of`)."""
    return "secrets/group_%s" % Path(script).stem


def join_group(options: argparse.Namespace, permits: Files, generation: int, log: Callable[[str], None]) -> Group:
    """Return the group of a server, in touch with its other members. Raises OSError where there is no token.

    `generation` is the one of its last start, from an earlier boot: it has ended, which the others are told.
    """
    hosts = options.group_hosts.split(",") if options.group_hosts else []
    if len(hosts) < 2:
        return Group()
    token = files.read_whole(str(options.state / token_file(options.script)), 4096).strip()
    address = (options.group_address, options.group_port)
    if options.group_rank:
        follower = Follower(hosts[0], permits, options.lost, max(1, generation))
        if generation:
            follower.note_end("was started again: its host was rebooted")
        follower.report_to(address, token)
        return follower
    leader = Leader(hosts, permits, options.lost, max(1, generation))
    if generation:
        leader.note_end("rank 0 on %s was started again: its host was rebooted" % hosts[0])
    leader.listen(address, token, options.group_peers.split(","), log)
    return leader
