"""Join the group that a launch script names in the options of `supervise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable, Sequence

from flagscale_deploy.remote.supervisor.follower import Follower
from flagscale_deploy.remote.supervisor.group import Group
from flagscale_deploy.remote.supervisor.leader import Leader
from flagscale_deploy.remote.supervisor.ray_head import RayHead
from flagscale_deploy.remote.supervisor.router import Router
from flagscale_deploy.remote.supervisor.spare import Spare
from flagscale_deploy.remote.system import files

if TYPE_CHECKING:
    import argparse

    from flagscale_deploy.remote.deployment.restart_permits import Files
    from flagscale_deploy.remote.messages.status import RestartState


def token_file(script: str) -> str:
    """Return where the token of the rank that a script starts lies, below the state directory (`group.token_of`)."""
    return "secrets/group_%s" % Path(script).stem


def join_group(options: argparse.Namespace, permits: Files, before: RestartState, log: Callable[[str], None]) -> Group:
    """Return the group of a server, in touch with its other members. Raises OSError where there is no token.

    `before` is its state from an earlier boot: its last start has ended, which the others are told.
    """
    if options.ray_head:
        return RayHead(options.ray_head_host, options.ray_head)
    if options.router:
        return Router(options.state, options.run, options.script, options.router, log)
    hosts = _split(options.group_hosts)
    spares, generation = _split(options.group_spares), before.get("generation", 0)
    if len(hosts) < 2:
        return Group()
    token = files.read_whole(str(options.state / token_file(options.script)), 4096).strip()
    address = (options.group_address, options.group_port)
    if options.group_rank:
        follower = Follower(hosts[0], permits, options.lost, max(1, generation))
        if options.rank_words:
            rank = options.group_rank if options.group_rank < len(hosts) else 0
            follower.keep_spare(Spare(options, holds=bool(rank)), rank)
        if generation:
            follower.note_end("was started again: its host was rebooted")
        follower.report_to(address, token)
        return follower
    leader = Leader([*hosts, *spares], permits, options.lost, max(1, generation))
    if options.rank_words:
        leader.keep_spares(len(hosts), before.get("hosts", []))
    if generation:
        leader.note_end("rank 0 on %s was started again: its host was rebooted" % hosts[0])
    leader.listen(address, token, options.group_peers.split(","), log)
    return leader


def _split(names: str) -> Sequence[str]:
    return names.split(",") if names else []
