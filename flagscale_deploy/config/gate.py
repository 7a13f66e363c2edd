"""`deploy.gate`: the proxy on the head that all clients go through."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from flagscale_deploy.config.environment import read_secret_files
from flagscale_deploy.config.schema.gate import GateSettings
from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.config.schema.settings import Deploy
from flagscale_deploy.gate.keys import LONGEST_KEY
from flagscale_deploy.gate.paths import ADMIN, PLAIN
from flagscale_deploy.secrets import Secret
from flagscale_deploy.support.quote import quoted

API_KEY, INTERNAL = "api-key", "deployment"
"""Names of keys that are no client's of the configuration: VLLM_API_KEY, and the key that is made for each run."""
KEY_VARIABLE = "VLLM_API_KEY"
"""The variable with the key that servers of vLLM ask for."""
SHORTEST = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class GateSpec:
    """`deploy.gate`, where there is a gate.

    `port`, `metrics_port` None: the planner's choice. `host` is the address it listens on, None all of them. `keys` are
    those of clients by name; without any it asks for none. `paths` pass beside the usual ones. A request waits `hold`
    seconds for a server.
    """

    port: int | None = None
    host: str | None = None
    metrics_port: int | None = None
    keys: Mapping[str, Secret] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    hold: float = 0.0


def read_gate(deploy: Deploy, set_in: Mapping[str, Path]) -> Checked[GateSpec | None]:
    """Return None where there is no gate."""
    faults = KeyFaults()
    settings = deploy.gate
    if settings is None or settings.enabled is False:
        return None, faults
    where = set_in["gate"]
    spec = GateSpec(
        port=None if settings.port == "auto" else settings.port,
        host=settings.host,
        metrics_port=settings.prometheus_port,
        keys=faults.take(_read_keys(settings, where)),
        paths=tuple(settings.paths or ()),
        hold=settings.hold or 0.0,
    )
    for path in spec.paths:
        if not PLAIN.fullmatch(path.removesuffix("/*")):
            faults.add((*where, "paths"), f"{quoted(path)} is not a path", "as in /tokenize, or /score/*")
        elif not ADMIN.isdisjoint(path.split("/")):
            faults.add((*where, "paths"), f"{quoted(path)} is for who runs the servers", "ask the server on its host")
    return spec, faults


def _read_keys(settings: GateSettings, where: Path) -> Checked[dict[str, Secret]]:
    faults = KeyFaults()
    keys: dict[str, Secret] = {}
    owners: dict[Secret, str] = {}
    written = {name: Secret(text) for name, text in (settings.keys or {}).items()}
    files = faults.take(read_secret_files(settings.key_files or {}, (*where, "key_files")))
    for place, named in (("keys", written), ("key_files", files)):
        for name, key in named.items():
            path = (*where, place, name)
            owner = owners.get(key)
            if not _NAME.fullmatch(name) or name in (API_KEY, INTERNAL):
                remedy = f"letters, digits and . _ @ -, 64 at most; not {API_KEY} or {INTERNAL}"
                faults.add(path, "is not a name for a key", remedy)
            elif name in keys:
                faults.add(path, "is set in keys too", "set it in one place")
            elif owner is not None:
                faults.add(path, f"is the key of {owner} too", "give each client a key of its own")
            elif not _KEY.fullmatch(key.reveal()) or not SHORTEST <= len(key.reveal()) <= LONGEST_KEY:
                remedy = f"{SHORTEST} ASCII characters or more, without blanks: openssl rand -hex 24"
                faults.add(path, "cannot be sent as a key", remedy)
            else:
                keys[name] = key
                owners[key] = name
    return keys, faults
