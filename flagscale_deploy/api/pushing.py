"""Copy files to all hosts."""

from __future__ import annotations

from dataclasses import replace

from flagscale_deploy.api.hosts import hosts_of
from flagscale_deploy.api.request import Request
from flagscale_deploy.events import Sink, silent
from flagscale_deploy.inventory.assembly import checked
from flagscale_deploy.push import push as act
from flagscale_deploy.push.arguments import PushOptions, parse_arguments
from flagscale_deploy.push.report import PushReport
from flagscale_deploy.transport.fleet import Fleet


def push(
    request: Request,
    source: str,
    dest: str,
    *,
    check: bool = False,
    checksum: bool = False,
    copy_links: bool = False,
    say: Sink = silent,
) -> PushReport:
    """Make `dest` on every host of the request equal to `source`: a local path, or HOST:PATH of the inventory.

    With `check` nothing is sent. Raises InputError and CheckError with nothing sent, and HostsUnreachableError where
    no host can be reached; the report holds all other failures, by host.
    """
    whole = hosts_of(request.options.inventory, request.spec)
    inventory = {host.name: host for host in whole.hosts}
    targets = {host.name: host for host in request.inventory.hosts}
    arguments = parse_arguments(source, dest, list(inventory))
    hosts = dict(targets)
    if arguments.host:
        checked(replace(whole, hosts=(inventory[arguments.host],)))
        hosts.setdefault(arguments.host, inventory[arguments.host])
    options = request.options
    timeout = request.timeouts.connect
    with Fleet(hosts.values(), forks=options.forks, connect_timeout=timeout, connect=options.connect) as fleet:
        return act.push(fleet, arguments, list(targets), PushOptions(check, checksum, copy_links), say)
