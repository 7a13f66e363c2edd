"""All checks, in the order in which a host is looked at, and what they say of a scene."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from flagscale_deploy.checks.boot import BOOT
from flagscale_deploy.checks.engine import ENGINE
from flagscale_deploy.checks.gpus import GPUS
from flagscale_deploy.checks.leftovers import LEFTOVERS
from flagscale_deploy.checks.machines import MACHINES
from flagscale_deploy.checks.memory import MEMORY
from flagscale_deploy.checks.model import Check, Finding, Scene, Verdict
from flagscale_deploy.checks.models import MODELS
from flagscale_deploy.checks.network import NETWORK
from flagscale_deploy.checks.placement import PLACEMENT
from flagscale_deploy.checks.ports import PORTS
from flagscale_deploy.checks.reach import REACH
from flagscale_deploy.checks.security import SECURITY
from flagscale_deploy.checks.software import SOFTWARE
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.units import counted

CHECKS: tuple[Check, ...] = (
    *REACH,
    *MACHINES,
    *SOFTWARE,
    *GPUS,
    *MEMORY,
    *NETWORK,
    *PORTS,
    *PLACEMENT,
    *MODELS,
    *ENGINE,
    *SECURITY,
    *LEFTOVERS,
    *BOOT,
)
REACHING = "reach"
"""The group of checks about a host as such: nothing can be done with one that fails them."""
NAMES: tuple[str, ...] = tuple(check.name for check in CHECKS)


def judge(scene: Scene, skip: Collection[str] = ()) -> tuple[Verdict, ...]:
    """What every check says of a scene, in the table's order: one verdict for each finding, at least one for a check.

    A check in `skip`, and one that has nothing to look at, is `skipped` and says why. Raises InputError for a name in
    `skip` that is none, or that can't be left out.
    """
    refuse_unskippable(skip)
    return tuple(verdict for check in CHECKS for verdict in _verdicts(check, scene, skip))


def refuse_unskippable(skip: Collection[str]) -> None:
    """Raise InputError for names of checks that are none, and of those that can't be left out."""
    faults = [fault for name in skip if (fault := _fault(name)) is not None]
    if faults:
        raise InputError(faults)


def _fault(name: str) -> Fault | None:
    check = next((each for each in CHECKS if each.name == name), None)
    if check is None:
        remedy = suggest(name, NAMES, f"checks are: {', '.join(NAMES)}")
        return Fault(f"--skip-check {name}", "there is no such check", remedy)
    if not check.skippable:
        return Fault(
            f"--skip-check {name}", "it can't be left out: nothing can be done without it", "correct its cause"
        )
    return None


def _verdicts(check: Check, scene: Scene, skip: Collection[str]) -> Iterator[Verdict]:
    if check.name in skip:
        yield Verdict(check.name, "skipped", found="left out: --skip-check", expected=check.expected)
        return
    if why := check.unless(scene):
        yield Verdict(check.name, "skipped", found=why, expected=check.expected)
        return
    findings = [_eased(check, scene, each) for each in check.look(scene)]
    complaints = list(dict.fromkeys(each for each in findings if each.state not in ("passed", "skipped")))
    if not complaints:
        yield _uncomplaining(check, scene, findings)
    for each in complaints:
        expected = each.expected or check.expected
        yield Verdict(check.name, each.state, each.host, each.found, expected, each.remedy)


def _uncomplaining(check: Check, scene: Scene, findings: Sequence[Finding]) -> Verdict:
    """passed with what was found, or skipped where nothing was looked at: that is no good news."""
    looked = len(check.looks_at(scene))
    why = check.blind or ("" if looked else "no host where it can be looked at")
    if not scene.facts:
        why = "no host answered"
    elif findings:
        why = findings[0].found if findings[0].state == "skipped" else ""
    if why:
        return Verdict(check.name, "skipped", found=why, expected=check.expected)
    said = findings[0].found if findings else counted(looked, "host")
    partly = f"; {', '.join(scene.silent)} did not answer" if scene.silent and check.group != REACHING else ""
    return Verdict(check.name, "passed", found=said + partly, expected=check.expected)


def _eased(check: Check, scene: Scene, finding: Finding) -> Finding:
    """What is wrong with a host that nothing runs on stops nothing, as long as it can be reached and worked on."""
    idle = scene.plan is not None and finding.host in scene.facts and finding.host not in scene.working
    eased = idle and finding.state == "failed" and check.group != REACHING
    return replace(finding, state="warning") if eased else finding
