"""Make a request again from what hosts keep of a run.

What hosts keep is their word: no variable of this machine's environment and no file with a secret is read for it, and
no secret is sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from flagscale_deploy.api.request import Request, load_request
from flagscale_deploy.config.schema.places import Document
from flagscale_deploy.config.source import parse_document
from flagscale_deploy.errors import CheckError
from flagscale_deploy.plan.kept import KeptRun

HELD_BY_HOSTS = "held-by-the-hosts"
"""In the place of a secret, whose value hosts have and keep."""


class _Placeholders(Mapping[str, str]):
    """An environment in which every variable is a secret that hosts have."""

    def __getitem__(self, name: str) -> str:
        return HELD_BY_HOSTS

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __contains__(self, name: object) -> bool:
        return True


def recall(kept: KeptRun, present: KeptRun, hosts: Request, *, exact: bool = True) -> Request:
    """Return the request that a run was made from, for the hosts of today; secrets are placeholders.

    Raises CheckError for secrets of other names than those of the `present` run, which hosts have, and for a
    configuration that is not complete; one that is not `exact` may be both.
    """
    where = f"{kept['deployment']}, {kept['run_id']}"
    if exact and not kept["complete"]:
        raise CheckError.at(where, "a part of its configuration is secret, and was not kept", "use its file: `update`")
    if exact and (other := _names(kept) ^ _names(present)):
        names = ", ".join(sorted({name for _, name in other}))
        raise CheckError.at(where, f"its secrets are others than those of today: {names}", "use its file: `update`")
    source = f"the configuration of {kept['run_id']}"
    document = _without_secret_files(parse_document(kept["configuration"], source))
    options = replace(hosts.options, config=source, overrides=(), name=kept["deployment"])
    request = load_request(options, document=document, variables=_Placeholders())
    spec = replace(request.serve, exp_dir=hosts.spec.exp_dir if hosts.spec else f"outputs/{kept['deployment']}")
    return replace(request, spec=spec, hides_logs=hosts.hides_logs)


def _without_secret_files(document: Document) -> Document:
    """Return a configuration that names the secrets which are in files, and gives each key of the gate another value.

    The files' paths may be hidden, and hold where the run was started; two clients with the same key are refused.
    """
    tree = document.value
    deploy = tree.get("deploy") if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or not isinstance(deploy, dict):
        return document
    deploy = dict(deploy)
    files, names = deploy.pop("secret_files", None), deploy.get("secrets")
    if isinstance(files, dict):
        deploy["secrets"] = [*(names if isinstance(names, list) else ()), *files]
    gate = deploy.get("gate")
    if isinstance(gate, dict):
        clients = [
            name for place in ("keys", "key_files") if isinstance(named := gate.get(place), dict) for name in named
        ]
        gate = {key: value for key, value in gate.items() if key not in ("keys", "key_files")}
        deploy["gate"] = {**gate, "keys": {name: f"{HELD_BY_HOSTS}-{number}" for number, name in enumerate(clients)}}
    return replace(document, value={**tree, "deploy": deploy})


def _names(run: KeptRun) -> set[tuple[str, str]]:
    """Return owner and name of each secret."""
    return {(owner, name) for owner, names in run["secrets"].items() for name in names}
