"""Share between checks: reasons to skip one, the planner's faults as findings, and commands to paste."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from flagscale_deploy.checks.types import Context, Finding, State
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.plan.program import is_program
from flagscale_deploy.plan.rank import Rank
from flagscale_deploy.support.shell import join, quote
from flagscale_deploy.support.units import counted

Why = Callable[[Context], str]
"""Returns why a check has nothing to look at; "" if it has."""


def no_facts(context: Context) -> str:
    """Return why there are no facts of any host; "" if there are."""
    return "" if context.facts else "no host answered"


def no_spec(context: Context) -> str:
    """Return why nothing is asked of the hosts; "" if there is a configuration."""
    return no_facts(context) or ("" if context.spec else "needs a configuration: -c")


def no_plan(context: Context) -> str:
    """Return why it is unknown which host runs what; "" if there is a plan."""
    if (why := no_spec(context)) or context.plan:
        return why
    silent = f": {', '.join(context.silent)} did not answer" if context.silent else ""
    return f"there is no plan{silent}"


def unplanned(check: str, unless: Why = no_spec) -> Why:
    """Return the skip reason of a check that reports the planner's faults, which may exist without a plan."""

    def why(context: Context) -> str:
        has_faults = any(fault.check == check for fault in context.faults)
        return unless(context) or ("" if has_faults else no_plan(context))

    return why


def no_ray(context: Context) -> str:
    """Return why no Ray is needed; "" if it is, or may be."""
    if why := no_spec(context):
        return why
    return "the plan has no Ray" if context.plan and not context.plan.ray.enabled else ""


def one_host(context: Context) -> str:
    """Return why hosts can't differ; "" if there are several."""
    return no_facts(context) or ("" if len(context.facts) > 1 else "there is only one host")


def from_planner(context: Context, check: str) -> Iterator[Finding]:
    """Return the planner's faults of a check as findings."""
    return (as_finding(context, fault) for fault in context.faults if fault.check == check)


def as_finding(context: Context, fault: Fault) -> Finding:
    """Return a fault of the planner as a finding; a fault in a file names its place in the file."""
    if fault.where in context.inventory.names:
        return Finding(fault.where, fault.problem, "", fault.remedy)
    return Finding(fault.host, f"{fault.where}: {fault.problem}", "", fault.remedy)


def engines(context: Context) -> tuple[InstancePlan, ...]:
    """Return the instances that are engines, not programs of the user's own."""
    return tuple(instance for instance in context.plan.instances if not is_program(instance)) if context.plan else ()


def ranks(context: Context) -> tuple[tuple[InstancePlan, Rank], ...]:
    """Return the processes of all engines, with their instances."""
    return tuple((instance, rank) for instance in engines(context) for rank in instance.ranks)


def engine_hosts(context: Context) -> dict[str, list[InstancePlan]]:
    """Return the engine instances that have a rank on each host, for hosts with facts."""
    instances: dict[str, list[InstancePlan]] = {}
    for instance in engines(context):
        for host in instance.hosts:
            if host in context.facts:
                instances.setdefault(host, []).append(instance)
    return instances


def ray_hosts(context: Context) -> tuple[str, ...]:
    """Return the Ray nodes that have facts, the head first."""
    return tuple(node.host for node in context.plan.ray.nodes if node.host in context.facts) if context.plan else ()


def model_of(context: Context, instance: InstancePlan) -> ModelSpec | None:
    """Return the configuration of an instance's model."""
    engines = context.spec.engines if context.spec else ()
    return next((model for model in engines if model.label == instance.label), None)


def spanning(context: Context) -> tuple[InstancePlan, ...]:
    """Return the engine instances that span several hosts."""
    return tuple(instance for instance in engines(context) if len(instance.hosts) > 1)


def environment(context: Context, host: str) -> Mapping[str, str]:
    """Return the environment variables that the user sets for a host."""
    spec = context.spec
    return {**(spec.env if spec else {}), **context.inventory[host].env}


def on(context: Context, host: str, *words: str, root: bool = False) -> str:
    """Return a command line to paste on the operator's machine that runs words on a host; a single word is shell.

    With `root`, sudo is added if the login user is not root: at `{sudo}` in shell, else at the beginning.
    """
    command = words[0] if len(words) == 1 else join(_printable(word) for word in words)
    facts = context.facts.get(host)
    as_root = root and not (facts is not None and facts.uid == 0 and facts.user)
    sudo = "sudo " if as_root else ""
    command = command.replace("{sudo}", sudo) if "{sudo}" in command else sudo + command
    target = context.inventory[host]
    if target.connection == "local":
        return command
    options: list[str] = ["-t"] if as_root else []
    options += ["-p", str(target.port)] if target.port and target.port != 22 else []
    options += ["-i", target.identity_file] if target.identity_file else []
    options += ["-J", target.proxy_jump] if target.proxy_jump else []
    to = f"{target.user}@{target.address}" if target.user else target.address
    plain = all(character.isalnum() or character in " =./:,_-+" for character in command)
    return " ".join(["ssh", join(map(_printable, [*options, to])), command if plain else quote(_printable(command))])


def _printable(text: str) -> str:
    return text.replace("\0", "?")


def shell_word(text: str) -> str:
    """Return text as a word of a command line to paste."""
    return quote(_printable(text))


def passed(text: str) -> Finding:
    """Return the finding of a check that found nothing wrong."""
    return Finding("", text, state="passed")


def summary(values: Iterable[object]) -> str:
    """Return `2.60.0 on 4 hosts`, or each value with the number of hosts that have it."""
    ranked = Counter(map(str, values)).most_common()
    return ", ".join(f"{value} on {counted(number, 'host')}" for value, number in ranked)


def failed_if(failing: bool) -> State:
    """Return the state of a finding: failed if it would break the deployment, else a warning."""
    return "failed" if failing else "warning"
