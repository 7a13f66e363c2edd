"""Read the recipe that `-c recipe:ORG/MODEL` names, for the commands that plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flagscale_deploy.api.request import Request
    from flagscale_deploy.output.console import Console


def settled(console: Console, request: Request, *, offline: bool = False) -> Request:
    """Return the request with its recipe read, if it asks for one; print why what nobody named was chosen."""
    if request.wish is None:
        return request
    from flagscale_deploy.api.recipes import settle

    with console.progress("recipe") as progress:
        request, reasons = settle(request, offline=offline, say=progress)
    if reasons:
        console.note(*reasons)
    return request
