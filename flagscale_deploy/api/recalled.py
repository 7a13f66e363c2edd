"""Make a request again from what hosts keep of a run."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flagscale_deploy.api.request import Request, load_request
from flagscale_deploy.config.source import parse_document
from flagscale_deploy.errors import CheckError, InputError
from flagscale_deploy.plan.kept import KeptRun

HELD_BY_HOSTS = "held-by-the-hosts"
"""In the place of a secret whose value the hosts have, and that is not sent."""


@dataclass(frozen=True)
class Recalled:
    """A request as it was; `secrets` says that its secrets are those of this machine's environment."""

    request: Request
    secrets: bool


def recall(
    kept: KeptRun, present: KeptRun, hosts: Request, environ: Mapping[str, str], *, exact: bool = True
) -> Recalled:
    """Return the request that a run was made from, for the hosts of today.

    Where the hosts have secrets of the same names, by what is kept of the `present` run, those stay; else the values
    are this machine's. Raises InputError for a missing value, CheckError for a configuration that is not complete; one
    that is not `exact` need not be.
    """
    where = f"{kept['deployment']}, {kept['run_id']}"
    if exact and not kept["complete"]:
        raise CheckError.at(where, "a part of its configuration is secret, and was not kept", "use its file: `update`")
    there = kept["secrets"] == present["secrets"]
    names = {name for own in kept["secrets"].values() for name in own}
    missing = sorted(name for name in names if name not in environ)
    if missing and not there:
        raise InputError.at(where, f"{', '.join(missing)} is not in the environment", "export it, and try again")
    values = ChainMap({}, {name: environ[name] for name in environ}, dict.fromkeys(missing, HELD_BY_HOSTS))
    source = f"the configuration of {kept['run_id']}"
    document = parse_document(kept["configuration"], source)
    options = replace(hosts.options, config=source, overrides=(), name=kept["deployment"])
    request = load_request(options, values, document)
    return Recalled(replace(request, hides_logs=hosts.hides_logs), secrets=not there)
