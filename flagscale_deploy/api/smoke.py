"""Test a deployment in CI: check, run, send prompts, status, logs, stop, and prove that nothing is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flagscale_deploy.api.cases import Case
from flagscale_deploy.api.request import PlanOptions, Request
from flagscale_deploy.api.smoke_phases import PHASES, Phases, Prompt, Smoke
from flagscale_deploy.deploy.lock import LOCK_WAIT_SECONDS
from flagscale_deploy.errors import InputError
from flagscale_deploy.events import Sink, silent
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.secrets.json_texts import redacted_json
from flagscale_deploy.support.file_modes import hand_on
from flagscale_deploy.support.paths import write_file
from flagscale_deploy.support.planted import refuse_planted_output

__all__ = ["PHASES", "Kept", "Prompt", "Smoke", "smoke"]


@dataclass(frozen=True)
class Kept:
    """What is kept of a test: files in `artifacts`, without the redactor's secrets; None: without the request's.

    `report` is called after each phase with the result so far. What it cannot write (InputError) ends nothing.
    """

    artifacts: Path
    redactor: Redactor | None = None
    report: Callable[[Smoke], None] = lambda _result: None


def smoke(
    request: Request,
    prompts: Sequence[Prompt],
    kept: Kept,
    options: PlanOptions = PlanOptions(),
    *,
    lock_wait: float = LOCK_WAIT_SECONDS,
    say: Sink = silent,
) -> Smoke:
    """Bring the deployment up, send prompts, and stop it, also after a failure or an interruption.

    A deployment that ran before is left alone; the test fails then. Failures of hosts and of the deployment are in
    the result. Raises InputError where `artifacts` cannot be written.
    """
    artifacts = kept.artifacts
    _prepare(artifacts)
    request = replace(request, spec=replace(request.serve, exp_dir=str(artifacts)), hides_logs=True)
    result = Smoke(request.deployment, artifacts)

    def note() -> None:
        with suppress(InputError):
            kept.report(replace(result, cases=_of_all_phases(result.cases, "not reached yet")))

    run = Phases(request, result, options, lock_wait, kept.redactor or request.redactor, say, note)
    run.redactor.add(*request.secrets)
    earlier = set(_runs(artifacts))
    if run.phase("check", run.check):
        try:
            if run.phase("run", run.start):
                for number, prompt in enumerate(prompts, 1):
                    if not run.interrupted:
                        run.phase("prompt", partial(run.ask, prompt), number)
                if not run.interrupted:
                    run.phase("status", run.status)
            if run.started:
                run.phase("logs", run.logs)
        finally:
            if run.started:
                run.phase("stop", run.stop)
                run.phase("clean", run.clean)
            run.redact([artifacts / "logs", *(folder for folder in _runs(artifacts) if folder not in earlier)])
    result.cases = _of_all_phases(result.cases, "an earlier phase failed")
    text = redacted_json(result.json(), partial(json.dumps, indent=2), run.redactor.redact)
    write_file(artifacts / "smoke.json", text + "\n", "smoke.json")
    for path in (artifacts, artifacts / "smoke.json"):
        hand_on(path)
    return result


def _prepare(artifacts: Path) -> None:
    """Create the folder and remove the result and the prompts of an earlier test.

    Raises InputError, also where a folder of ours is a link: what is found there is rewritten without secrets. So does
    one that another user has put into /tmp or the like, where they can put links at any time.
    """
    for folder in (artifacts / "logs", artifacts / "runs"):
        refuse_planted_output(folder)
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        for name in ("smoke.json", "prompts.txt"):
            (artifacts / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError.at(str(artifacts), f"artifacts cannot be written there: {error.strerror}") from error
    for folder in (artifacts / "logs", artifacts / "runs"):
        if folder.is_symlink():
            raise InputError.at(str(folder), "is a link", "remove it, or name another folder with --artifacts")


def _runs(artifacts: Path) -> list[Path]:
    return list((artifacts / "runs").glob("*"))


def _of_all_phases(cases: Sequence[Case], why: str) -> list[Case]:
    """Return cases sorted by phase, with a skipped one for each phase that has none; `why` is its message."""
    missing = {*PHASES} - {case.phase for case in cases}
    skipped = [Case(phase, "", "skipped", message=why) for phase in missing]
    return sorted([*cases, *skipped], key=lambda case: PHASES.index(case.phase))
