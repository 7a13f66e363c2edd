"""Each published form of the configuration, translated into models. No code behind this border knows of forms."""

from __future__ import annotations

from typing import Any

from flagscale_deploy.config.dialects import list_form, seed
from flagscale_deploy.config.dialects.model import Entry
from flagscale_deploy.config.places import Findings, Path, nearest

_BODY_KEYS = ("model_args", "deploy")
_OLDER = ("llm", "hostfile")


def read_entries(tree: dict[str, Any], findings: Findings) -> list[Entry]:
    """The models of a resolved configuration, in the order of the file; faults go to `findings`."""
    path: Path = ("serve",) if "serve" in tree else ()
    body = tree["serve"] if path else {key: value for key, value in tree.items() if key in (*_BODY_KEYS, *_OLDER)}
    if path and "model_args" in tree:
        findings.add(("model_args",), "the models are under serve: already", "keep one of the two")
    if isinstance(body, list):
        return list_form.read(body, path, findings)
    if not isinstance(body, dict):
        findings.add(path, "holds no models", "expected model_args: and deploy:, or a list of - serve_id: …")
        return []
    if _not_ours(body, path, findings):
        return []
    for key in body.keys() - {*_BODY_KEYS, *_OLDER}:
        findings.add((*path, key), "unknown key", nearest(key, _BODY_KEYS))
    return seed.read(body.get("model_args"), (*path, "model_args"), findings)


def _not_ours(body: dict[str, Any], path: Path, findings: Findings) -> bool:
    """Name the modes that we do not run; True if the file is one of those."""
    deploy = body.get("deploy")
    models = deploy.get("models") if isinstance(deploy, dict) else None
    for name, options in (models or {}).items() if isinstance(models, dict) else ():
        if isinstance(options, dict) and options.keys() & {"module", "depends"}:
            remedy = "name a model to serve with vLLM under model_args; run a composition with FlagScale itself"
            findings.add((*path, "deploy", "models", name), "is part of a composition graph (module, depends)", remedy)
            return True
    if "llm" in body:
        findings.add((*path, "llm"), "is the form of before December 2024", "write it as model_args: {vllm_model: …}")
        return True
    if "hostfile" in body:
        findings.add(
            (*path, "hostfile"), "hosts are not read from here", "put them into an inventory, and pass it with -i"
        )
    return False
