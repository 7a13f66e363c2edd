"""List the deployments on the hosts of an inventory, and who holds their GPUs."""

from __future__ import annotations

from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.overview import Overview, overview


def deployments(request: Request, *, gpus: bool = False) -> Overview:
    """Return the state of every deployment on the hosts, running or stopped, by name; with `gpus` their holders."""
    with request.fleet() as fleet:
        return overview(fleet, request.inventory.head.name, gpus=gpus)
