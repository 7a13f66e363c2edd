"""The oldest forms (before December 2024): one model under `llm:` (or `vllm:`), its copies in `deploy.instance`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flagscale_deploy.config.dialects import seed
from flagscale_deploy.config.dialects.model import Entry
from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.config.schema.settings import ModelOptions
from flagscale_deploy.config.schema.validate import read_settings

ROOTS = ("llm", "vllm")


def read(root: str, args: Any, instances: Any, path: Path, findings: Findings) -> list[Entry]:
    """The one model; `instances` is what `deploy.instance` holds, `path` the mapping that both stand in.

    It has the name of the instance where there is one, else that of its root.
    """
    options = _read_instances(instances, (*path, "deploy", "instance"), findings)
    named = options[0].name if len(options) == 1 else None
    entry = seed.read_model(named if isinstance(named, str) else root, args, (*path, root), findings)
    if entry is None:
        return []
    copies = [each.num_replicas or each.replicas or 1 for each in options] or [1]
    total: Any = "auto" if "auto" in copies else sum(int(each) for each in copies)
    first = options[0] if options else ModelOptions()
    return [replace(entry, options=first.model_copy(update={"num_replicas": total, "replicas": None}))]


def _read_instances(instances: Any, path: Path, findings: Findings) -> list[ModelOptions]:
    """`[{name: …, num-replicas: 2}]`, or that mapping by itself."""
    if instances is None:
        return []
    if isinstance(instances, dict):
        return [read_settings(ModelOptions, instances, path, findings)]
    if not isinstance(instances, list):
        findings.add(path, "is no list", "as in instance: [{name: qwen2.5-7b, num-replicas: 1}]")
        return []
    return [read_settings(ModelOptions, each, (*path, str(at)), findings) for at, each in enumerate(instances)]
