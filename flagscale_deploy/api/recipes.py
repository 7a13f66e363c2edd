"""Read the recipe that a request asks for; hardware and strategy that nobody named follow from the hosts' GPUs."""

from __future__ import annotations

import os
from collections.abc import Mapping

from flagscale_deploy.api.planning import observe_hosts
from flagscale_deploy.api.request import Request, load_request
from flagscale_deploy.config.source import parse_document
from flagscale_deploy.deploy.probe_hosts import facts_of
from flagscale_deploy.events import Sink, silent
from flagscale_deploy.recipes.choice import HostGpus, choose
from flagscale_deploy.recipes.folder import open_folder
from flagscale_deploy.recipes.library import Library
from flagscale_deploy.recipes.recipe import serve_yaml
from flagscale_deploy.recipes.site import Site

FOLDER_VARIABLE = "FLAGSCALE_DEPLOY_RECIPES"


def settle(
    request: Request,
    *,
    offline: bool = False,
    say: Sink = silent,
    environ: Mapping[str, str] | None = None,
    site: Library | None = None,
) -> tuple[Request, tuple[str, ...]]:
    """Return the request with its recipe read, and why what nobody named was chosen; others are returned as they are.

    Hosts are probed where hardware or strategy is not named, unless `offline`: then what the inventory declares counts.
    Raises InputError, HostsUnreachableError.
    """
    if request.wish is None:
        return request, ()
    environ = os.environ if environ is None else environ
    place = request.options.recipes or environ.get(FOLDER_VARIABLE)
    library = open_folder(place) if place else site or Site()
    is_open = request.wish.hardware is None or request.wish.strategy is None
    choice = choose(library, request.wish, _gpus(request, offline, say) if is_open else {})
    document = parse_document(serve_yaml(choice.recipe), str(request.options.config))
    return load_request(request.options, environ, document), choice.reasons


def _gpus(request: Request, offline: bool, say: Sink) -> dict[str, HostGpus]:
    """Return the GPUs of each host, as probed, else as declared: by `gpus`, and by a `type` that names them."""
    hosts = {host.name: host for host in request.inventory.hosts}
    if offline:
        return {name: HostGpus(host.gpus or 0, host.type) for name, host in hosts.items()}
    with request.fleet() as fleet:
        facts = facts_of(observe_hosts(request, fleet, say))
    gpus = {}
    for name, host in hosts.items():
        probed = facts[name].gpus
        count = len(probed) if host.gpus is None else host.gpus
        gpus[name] = HostGpus(count, probed[0].name if probed else host.type)
    return gpus
