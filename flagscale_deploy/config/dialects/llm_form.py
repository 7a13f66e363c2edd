"""The oldest forms (before December 2024): one model under `llm:` (or `vllm:`), its copies in `deploy.instance`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from flagscale_deploy.config.dialects import model_args_form
from flagscale_deploy.config.dialects.model import Entry
from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.config.schema.settings import ModelOptions
from flagscale_deploy.config.schema.validate import read_settings
from flagscale_deploy.support.value import Value

ROOTS = ("llm", "vllm")


def read(root: str, args: Value, instances: Value, path: Path) -> Checked[list[Entry]]:
    """Return the one model; `instances` is what `deploy.instance` holds, `path` the mapping that both stand in.

    It has the name of the instance where there is one, else that of its root.
    """
    faults = KeyFaults()
    options = faults.take(_read_instances(instances, (*path, "deploy", "instance")))
    name = options[0].name if len(options) == 1 else None
    entry = faults.take(model_args_form.read_model(name if isinstance(name, str) else root, args, (*path, root)))
    if entry is None:
        return [], faults
    counts = [option.num_replicas or option.replicas or 1 for option in options] or [1]
    numbers = [count for count in counts if count != "auto"]
    total: int | Literal["auto"] = sum(numbers) if len(numbers) == len(counts) else "auto"
    first = options[0] if options else ModelOptions()
    return [
        replace(entry, options=first.model_copy(update={"num_replicas": total if options else None, "replicas": None}))
    ], faults


def _read_instances(instances: Value, path: Path) -> Checked[list[ModelOptions]]:
    """Return the options of `[{name: …, num-replicas: 2}]`, or of that mapping by itself."""
    faults = KeyFaults()
    if instances is None:
        return [], faults
    if isinstance(instances, dict):
        return [faults.take(read_settings(ModelOptions, instances, path))], faults
    if not isinstance(instances, list):
        faults.add(path, "is not a list", "as in instance: [{name: qwen2.5-7b, num-replicas: 1}]")
        return [], faults
    settings = [read_settings(ModelOptions, item, (*path, str(index))) for index, item in enumerate(instances)]
    return [faults.take(options) for options in settings], faults
