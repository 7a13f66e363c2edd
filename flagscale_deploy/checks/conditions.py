"""What checks share: why there is nothing to look at, the planner's faults as findings, commands to paste."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from flagscale_deploy.checks.model import Finding, Scene, State
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.errors import Fault
from flagscale_deploy.plan.model import InstancePlan
from flagscale_deploy.plan.program import is_program
from flagscale_deploy.support.shell import join, quote
from flagscale_deploy.support.units import counted

Why = Callable[[Scene], str]
"""Why a check has nothing to look at, "" where it has."""


def no_answer(scene: Scene) -> str:
    """Why nothing is known of any host, if nothing is."""
    return "" if scene.facts else "no host answered"


def no_spec(scene: Scene) -> str:
    """Why nothing is asked of the hosts."""
    return no_answer(scene) or ("" if scene.spec else "needs a configuration: -c")


def no_plan(scene: Scene) -> str:
    """Why it isn't known which host does what."""
    if (why := no_spec(scene)) or scene.plan:
        return why
    silent = f": {', '.join(scene.silent)} did not answer" if scene.silent else ""
    return f"there is no plan to look at{silent}"


def unplanned(check: str, unless: Why = no_spec) -> Why:
    """Why there is nothing to look at for a check that tells the planner's faults, which may be told without a plan."""

    def why(scene: Scene) -> str:
        told = any(fault.check == check for fault in scene.faults)
        return unless(scene) or ("" if told else no_plan(scene))

    return why


def no_ray(scene: Scene) -> str:
    """Why no Ray is needed, where that is known."""
    if why := no_spec(scene):
        return why
    return "the plan has no Ray" if scene.plan and not scene.plan.ray.enabled else ""


def one_host(scene: Scene) -> str:
    """Why hosts can't differ."""
    return no_answer(scene) or ("" if len(scene.facts) > 1 else "there is only one host")


def from_planner(scene: Scene, check: str) -> Iterator[Finding]:
    """The planner's faults of a check; one in a file names its place there."""
    return (as_finding(scene, fault) for fault in scene.faults if fault.check == check)


def as_finding(scene: Scene, fault: Fault) -> Finding:
    """Return a fault of the planner as a finding of the host that it is about."""
    if fault.where in scene.inventory.names:
        return Finding(fault.where, fault.problem, "", fault.remedy)
    return Finding(fault.host, f"{fault.where}: {fault.problem}", "", fault.remedy)


def engines(scene: Scene) -> tuple[InstancePlan, ...]:
    """The instances that are engines, and no programs of the user's own."""
    return tuple(each for each in scene.plan.instances if not is_program(each)) if scene.plan else ()


def engine_hosts(scene: Scene) -> dict[str, list[InstancePlan]]:
    """The engines' instances that have a rank on each host, of hosts that answered."""
    found: dict[str, list[InstancePlan]] = {}
    for each in engines(scene):
        for host in each.hosts:
            if host in scene.facts:
                found.setdefault(host, []).append(each)
    return found


def ray_hosts(scene: Scene) -> tuple[str, ...]:
    """The Ray nodes that answered, the head first."""
    return tuple(node.host for node in scene.plan.ray.nodes if node.host in scene.facts) if scene.plan else ()


def model_of(scene: Scene, instance: InstancePlan) -> ModelSpec | None:
    """What an instance was asked to be."""
    models = scene.spec.models if scene.spec else ()
    return next((each for each in models if each.name == instance.model), None)


def spanning(scene: Scene) -> tuple[InstancePlan, ...]:
    """Instances over several hosts."""
    return tuple(each for each in engines(scene) if len(each.hosts) > 1)


def environment(scene: Scene, host: str) -> Mapping[str, str]:
    """The variables that the user sets for a host."""
    spec = scene.spec
    return {**(spec.env if spec else {}), **scene.inventory[host].env}


def on(scene: Scene, host: str, *words: str, root: bool = False) -> str:
    """A command line to paste on the operator's machine that runs words on a host; a single word is shell.

    As root where that is needed and the login is another user's: `{sudo}` in shell says where, else it comes first.
    """
    there = words[0] if len(words) == 1 else join(_printable(word) for word in words)
    facts = scene.facts.get(host)
    as_root = root and not (facts is not None and facts.uid == 0 and facts.user)
    sudo = "sudo " if as_root else ""
    there = there.replace("{sudo}", sudo) if "{sudo}" in there else sudo + there
    known = scene.inventory[host]
    if known.connection == "local":
        return there
    options: list[str] = ["-t"] if as_root else []
    options += ["-p", str(known.port)] if known.port and known.port != 22 else []
    options += ["-i", known.identity_file] if known.identity_file else []
    options += ["-J", known.proxy_jump] if known.proxy_jump else []
    to = f"{known.user}@{known.address}" if known.user else known.address
    plain = all(character.isalnum() or character in " =./:,_-+" for character in there)
    return " ".join(["ssh", join(map(_printable, [*options, to])), there if plain else quote(_printable(there))])


def _printable(text: str) -> str:
    return text.replace("\0", "?")


def word(text: str) -> str:
    """A text as a word of a command line to paste."""
    return quote(_printable(text))


def passed(found: str) -> Finding:
    """What was found where nothing is wrong."""
    return Finding("", found, state="passed")


def summary(values: Iterable[object]) -> str:
    """`2.60.0 on 4 hosts`, or each value with the number of hosts that have it."""
    ranked = Counter(map(str, values)).most_common()
    return ", ".join(f"{value} on {counted(number, 'host')}" for value, number in ranked)


def at_worst(failing: bool) -> State:
    """failed where it would break the deployment, else a warning."""
    return "failed" if failing else "warning"
