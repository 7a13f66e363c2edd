"""Write a deployment's configuration as one serve YAML."""

from __future__ import annotations

from collections.abc import Mapping

from flagscale_deploy.config.source import dump_document
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.support.value import Tree, Value


def written(spec: ServeSpec) -> str:
    """Return the serve YAML that the same specification is read from: files and overrides in one, references kept.

    It may hold secrets that were written out in those files.
    """
    return f"# {spec.source}\n{dump_document(named(spec.tree, spec.name))}"


def named(tree: Mapping[str, Value], name: str) -> Tree:
    """Return a configuration that has this name, wherever it is read."""
    experiment, deploy = tree.get("experiment"), tree.get("deploy")
    if isinstance(experiment, dict) and experiment.get("exp_name") == name:
        return dict(tree)
    return {**tree, "deploy": {**(deploy if isinstance(deploy, dict) else {}), "name": name}}
