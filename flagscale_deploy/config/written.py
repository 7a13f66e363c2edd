"""Write a deployment's configuration as one serve YAML."""

from __future__ import annotations

from flagscale_deploy.config.source import dump_document
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.support.value import Tree


def written(spec: ServeSpec) -> str:
    """Return the serve YAML that the same specification is read from: files and overrides in one, references kept.

    It may hold secrets that were written out in those files.
    """
    tree: Tree = dict(spec.tree)
    experiment, deploy = tree.get("experiment"), tree.get("deploy")
    if not isinstance(experiment, dict) or experiment.get("exp_name") != spec.name:
        tree["deploy"] = {**(deploy if isinstance(deploy, dict) else {}), "name": spec.name}
    return f"# {spec.source}\n{dump_document(tree)}"
