"""The files with secrets for a deployment that runs: of groups that are started into it, and of its gate."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from flagscale_deploy.config.gate import KEY_VARIABLE
from flagscale_deploy.deploy.bring_up import Run
from flagscale_deploy.deploy.gate import behind_gate, running_key
from flagscale_deploy.deploy.launch import TOKEN_FILE
from flagscale_deploy.deploy.private_files import private_files, secrets_by_host
from flagscale_deploy.plan.gate import INTERNAL_KEY
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.secrets import Secret


def group_files(run: Run, plan: Plan, hosts: Collection[str]) -> dict[str, dict[str, str]]:
    """Return the text of each file by host, for a plan of some groups and Ray nodes of the run's.

    These hosts get the secrets of the run; the others keep those that they have. Servers ask for the key of the gate
    that runs. Where the gate itself starts together with servers, those get a new key, and `hosts` are all of them.
    Nodes that join get the token of Ray. Raises RemoteError where key or token are not where they should be.
    """
    env = secrets_by_host(run.plan, run.spec, run.fleet)
    sent: Mapping[str, Mapping[str, Secret]] = {host: env[host] for host in plan.hosts if host in hosts}
    at_gate: Mapping[str, str] = {}
    gate = run.plan.gate
    if plan.gate is not None and plan.instances:
        sent, at_gate = behind_gate(plan.gate, run.spec.gate, sent)
    elif sent and gate is not None:
        key = running_key(run.fleet, plan.deployment, gate.driver, run.redactor)
        sent = {host: {**own, KEY_VARIABLE: key} for host, own in sent.items()}
    private = private_files(plan, run.spec, sent, run.redactor, ray_token=None)
    private[plan.head] |= at_gate
    if nodes := [step.host for stage in plan.stages for step in stage.steps if step.role == "ray-worker"]:
        token = running_key(run.fleet, plan.deployment, plan.head, run.redactor, of="ray")
        for host in nodes:
            private[host][TOKEN_FILE] = token.reveal()
    return private


def gate_keys(run: Run) -> dict[str, str]:
    """Return the file with the clients' keys for a gate that runs; none where it asks for none, or there is no gate.

    Raises RemoteError where the gate does not run.
    """
    gate, spec, fleet = run.plan.gate, run.spec, run.fleet
    if gate is None:
        return {}
    internal = running_key(fleet, run.plan.deployment, gate.driver, run.redactor)
    _, files = behind_gate(gate, spec.gate, secrets_by_host(run.plan, spec, fleet), internal)
    return {path: text for path, text in files.items() if path != INTERNAL_KEY}
