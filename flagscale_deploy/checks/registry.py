"""List all checks, in the order in which a host is looked at, and run them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from flagscale_deploy.checks.all2all import ALL2ALL
from flagscale_deploy.checks.boot import BOOT
from flagscale_deploy.checks.engine import ENGINE
from flagscale_deploy.checks.experts import EXPERTS
from flagscale_deploy.checks.gpus import GPUS
from flagscale_deploy.checks.leftovers import LEFTOVERS
from flagscale_deploy.checks.machines import MACHINES
from flagscale_deploy.checks.memory import MEMORY
from flagscale_deploy.checks.models import MODELS
from flagscale_deploy.checks.network import NETWORK
from flagscale_deploy.checks.placement import PLACEMENT
from flagscale_deploy.checks.ports import PORTS
from flagscale_deploy.checks.reach import REACH
from flagscale_deploy.checks.security import SECURITY
from flagscale_deploy.checks.software import SOFTWARE
from flagscale_deploy.checks.types import Check, Context, Finding, Verdict
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.support.suggest import suggest
from flagscale_deploy.support.units import counted

CHECKS: tuple[Check, ...] = (
    *REACH,
    *MACHINES,
    *SOFTWARE,
    *ALL2ALL,
    *GPUS,
    *MEMORY,
    *NETWORK,
    *PORTS,
    *PLACEMENT,
    *MODELS,
    *EXPERTS,
    *ENGINE,
    *SECURITY,
    *LEFTOVERS,
    *BOOT,
)
REACHING = "reach"
"""The group of checks about the connection to a host: a host that fails them can't be used at all."""
NAMES: tuple[str, ...] = tuple(check.name for check in CHECKS)


def judge(context: Context, skip: Collection[str] = ()) -> tuple[Verdict, ...]:
    """Return the verdicts of all checks, in the table's order: one for each finding, at least one for each check.

    A check in `skip`, and one that has nothing to look at, is `skipped`, with the reason. Raises InputError for a name
    in `skip` that is unknown, or that can't be skipped.
    """
    refuse_unskippable(skip)
    return tuple(verdict for check in CHECKS for verdict in _verdicts(check, context, skip))


def refuse_unskippable(skip: Collection[str]) -> None:
    """Raise InputError for unknown names of checks, and for checks that can't be skipped."""
    faults = [fault for name in skip if (fault := _fault(name)) is not None]
    if faults:
        raise InputError(faults)


def _fault(name: str) -> Fault | None:
    check = next((check for check in CHECKS if check.name == name), None)
    if check is None:
        remedy = suggest(name, NAMES, f"checks are: {', '.join(NAMES)}")
        return Fault(f"--skip-check {name}", "there is no such check", remedy)
    if not check.skippable:
        return Fault(
            f"--skip-check {name}", "it can't be skipped: no plan can be made without it", "correct what it reports"
        )
    return None


def _verdicts(check: Check, context: Context, skip: Collection[str]) -> Iterator[Verdict]:
    if check.name in skip:
        yield Verdict(check.name, "skipped", found="skipped by --skip-check", expected=check.expected)
        return
    if why := check.unless(context):
        yield Verdict(check.name, "skipped", found=why, expected=check.expected)
        return
    findings = [_eased(check, context, finding) for finding in check.look(context)]
    complaints = list(dict.fromkeys(finding for finding in findings if finding.state not in ("passed", "skipped")))
    if not complaints:
        yield _uncomplaining(check, context, findings)
    for finding in complaints:
        expected = finding.expected or check.expected
        yield Verdict(check.name, finding.state, finding.host, finding.found, expected, finding.remedy)


def _uncomplaining(check: Check, context: Context, findings: Sequence[Finding]) -> Verdict:
    """Return passed with what was found, or skipped if nothing was looked at."""
    looked = len(check.looks_at(context))
    why = check.blind or ("" if looked else "no host has anything to look at")
    if not context.facts:
        why = "no host answered"
    elif findings:
        why = findings[0].found if findings[0].state == "skipped" else ""
    if why:
        return Verdict(check.name, "skipped", found=why, expected=check.expected)
    result = findings[0].found if findings else counted(looked, "host")
    partly = f"; {', '.join(context.silent)} did not answer" if context.silent and check.group != REACHING else ""
    return Verdict(check.name, "passed", found=result + partly, expected=check.expected)


def _eased(check: Check, context: Context, finding: Finding) -> Finding:
    """Return a failure on a host that the plan does not use as a warning, as long as the host can be reached."""
    idle = context.plan is not None and finding.host in context.facts and finding.host not in context.working
    eased = idle and finding.state == "failed" and check.group != REACHING
    return replace(finding, state="warning") if eased else finding
