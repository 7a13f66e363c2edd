"""A smoke deploy for CI on bare metal: check, run, prompts, status, logs, stop, proof that nothing is left."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flagscale_deploy import api
from flagscale_deploy.api.cases import Case
from flagscale_deploy.api.checking import fault_of
from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.bring_up import RunFailedError
from flagscale_deploy.deploy.lock import LOCK_WAIT_SECONDS
from flagscale_deploy.deploy.stop import StopReport
from flagscale_deploy.deploy.stop import describe as describe_stop
from flagscale_deploy.errors import CheckError, DeployError, FaultsError, HostError, InputError, InterruptedByUser
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.support.file_modes import hand_on
from flagscale_deploy.transport.fleet import answers, failures

PHASES = ("check", "run", "prompt", "status", "logs", "stop", "clean")


@dataclass(frozen=True)
class Prompt:
    """A prompt and what its answer has to be: `expect` is a regular expression searched in the text."""

    text: str
    expect: str | None = None
    min_tokens: int = 1
    max_tokens: int = 128


@dataclass
class Smoke:
    """What happened, phase by phase; `exit_code` is that of the first phase that failed, 0 if none did."""

    deployment: str
    artifacts: Path
    cases: list[Case] = field(default_factory=list)
    exit_code: int = 0

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    def json(self) -> dict[str, Any]:
        """`smoke --json`."""
        return {
            "schema": 1,
            "deployment": self.deployment,
            "passed": self.passed,
            "exit_code": self.exit_code,
            "artifacts": str(self.artifacts),
            "cases": [asdict(case) for case in self.cases],
        }


def smoke(
    request: Request,
    prompts: Sequence[Prompt],
    artifacts: Path,
    *,
    templates: Path | None = None,
    force: bool = False,
    skip: Collection[str] = (),
    lock_wait: float = LOCK_WAIT_SECONDS,
    redactor: Redactor | None = None,
    say: Sink,
) -> Smoke:
    """Deploy, ask, take down. Takes down whatever it started, also when it fails or is interrupted; raises nothing for
    what a deployment or a host does; InputError where artifacts cannot be written.

    A deployment that ran before is left alone, and the smoke fails.
    """
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        (artifacts / "prompts.txt").unlink(missing_ok=True)  # an earlier smoke's
    except OSError as error:
        raise InputError.at(str(artifacts), f"artifacts cannot be written there: {error.strerror}") from error
    request = replace(request, spec=replace(request.serve, exp_dir=str(artifacts)))
    result = Smoke(request.deployment, artifacts)
    how: dict[str, Any] = {"templates": templates, "force": force, "skip": skip}
    run = _Run(request, result, how, lock_wait, redactor or Redactor(), say)
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
    for phase in PHASES:
        if not any(case.phase == phase for case in result.cases):
            result.cases.append(Case(phase, "", "skipped", message="an earlier phase failed"))
    result.cases.sort(key=lambda case: PHASES.index(case.phase))
    (artifacts / "smoke.json").write_text(
        run.redactor.redact(json.dumps(result.json(), indent=2)) + "\n", encoding="utf-8"
    )
    for path in (artifacts, artifacts / "smoke.json"):
        hand_on(path)
    return result


@dataclass
class _Run:
    request: Request
    result: Smoke
    how: Mapping[str, Any]
    """What `check` and `run` are told beside the request."""
    lock_wait: float
    redactor: Redactor
    say: Sink
    started: bool = False
    """Whether anything was: what was refused because of another's lock or deployment leaves nothing to take down."""
    interrupted: bool = False

    def phase(self, name: str, act: Callable[[], list[Case]], number: int | None = None) -> bool:
        """Do a phase and note its cases; whether it passed."""
        began = time.monotonic()
        self.say(Event("smoke", "note", text=f"── {name}"))
        code = 0
        try:
            cases = act()
        except RunFailedError as error:
            cases, code = _run_cases(error), error.exit_code
        except KeyboardInterrupt:
            cases, code = [Case(name, "", "failed", message="interrupted")], InterruptedByUser.exit_code
        except FaultsError as error:
            cases = [
                Case(name, fault.where, "failed", message=f"{fault.problem} → {fault.remedy}") for fault in error.faults
            ]
            code = error.exit_code
        except DeployError as error:
            host = error.host if isinstance(error, HostError) else ""
            cases, code = [Case(name, host, "failed", message=str(error))], error.exit_code
        took = time.monotonic() - began
        self.result.cases += [replace(case, seconds=case.seconds or took, number=number) for case in cases]
        failed = [case for case in cases if case.state == "failed"]
        self.interrupted |= code == InterruptedByUser.exit_code
        if failed and not self.result.exit_code:
            self.result.exit_code = code or 1
        return not failed

    def check(self) -> list[Case]:
        running = api.status(self.request, ask=False)
        if running.live_processes:
            raise CheckError.at(
                self.request.deployment,
                f"it runs already (run {running.run_id} of {running.operator}); a smoke deploy leaves it alone",
                "stop it, or choose another --name",
            )
        report = api.check(self.request, **self.how, say=self.say)
        problems: dict[str, list[str]] = {}
        for fault in map(fault_of, report.failed):
            problems.setdefault(fault.where, []).append(str(fault))
        cases = [
            Case("check", name, "failed" if name in problems else "passed", message="\n".join(problems.pop(name, ())))
            for name in report.observations
        ]
        cases += [Case("check", where, "failed", message="\n".join(found)) for where, found in problems.items()]
        self.result.exit_code = report.exit_code
        return cases

    def start(self) -> list[Case]:
        result = api.run(
            self.request,
            **self.how,
            lock_wait=self.lock_wait,
            redactor=self.redactor,
            say=self._note_start,
            what="smoke: run",
        )
        if result.up is None or result.plan is None:
            raise CheckError.at(self.request.deployment, "it runs already; somebody else has just started it")
        took = result.up.ready_after
        served = [(each, f"{each.name} at {each.endpoint}") for each in result.plan.instances]
        return [
            Case("run", each.driver, "passed", message=f"{said}, ready {took[each.name]:.1f} s after its start")
            for each, said in served
        ]

    def _note_start(self, event: Event) -> None:
        """A finished plan is the last thing before the first act on a host."""
        self.started |= (event.stage, event.state) == ("plan", "done")
        self.say(event)

    def ask(self, prompt: Prompt) -> list[Case]:
        answer = api.call(self.request, [{"role": "user", "content": prompt.text}], max_tokens=prompt.max_tokens)
        text, tokens = _completion(answer)
        with (self.result.artifacts / "prompts.txt").open("a", encoding="utf-8") as file:
            file.write(f"> {prompt.text}\n{text}\n({tokens} tokens)\n\n")
        problem = ""
        if tokens < prompt.min_tokens:
            problem = f"{tokens} tokens came, expected at least {prompt.min_tokens}"
        elif prompt.expect is not None and re.search(prompt.expect, text) is None:
            problem = f"the answer does not match {prompt.expect!r}"
        said = f"{tokens} tokens: {text[:200]!r}"
        return [
            Case("prompt", "", "failed" if problem else "passed", message=f"{problem}: {said}" if problem else said)
        ]

    def status(self) -> list[Case]:
        found = api.status(self.request)
        return [
            Case(
                "status",
                host.host,
                "passed" if found.state in ("ready", "finished") and host.state == "running" else "failed",
                message=f"deployment {found.state}, host {host.state} {host.problem}".strip(),
            )
            for host in found.hosts
            if host.roles or host.state == "UNKNOWN"
        ]

    def logs(self) -> list[Case]:
        collected = api.collect(self.request, self.result.artifacts / "logs")
        cases = [
            Case("logs", name, "passed", message=f"{len(each.files)} files, {each.bytes} bytes")
            for name, each in answers(collected).items()
        ]
        return cases + [Case("logs", name, "failed", message=str(error)) for name, error in failures(collected).items()]

    def stop(self) -> list[Case]:
        return _stop_cases("stop", api.stop(self.request, say=self.say, what="smoke: stop"))

    def clean(self) -> list[Case]:
        cases = _stop_cases("clean", api.cleanup(self.request, say=self.say, what="smoke: cleanup"))
        left = api.status(self.request, ask=False)
        cases += [
            Case("clean", host.host, "failed", message=f"{host.state}: {host.processes} processes are left")
            for host in left.hosts
            if host.state != "absent"
        ]
        return cases


def _completion(answer: Mapping[str, Any]) -> tuple[str, int]:
    """Text and number of tokens of a chat completion. Raises DeployError for an answer that is none."""
    try:
        return str(answer["choices"][0]["message"]["content"] or ""), int(answer["usage"]["completion_tokens"])
    except (LookupError, TypeError, ValueError) as error:
        raise DeployError(f"the server's answer is no chat completion: {str(answer)[:500]}") from error


def _stop_cases(phase: str, report: StopReport) -> list[Case]:
    return [
        Case(
            phase,
            host.host,
            "passed" if host.state in ("stopped", "nothing") and not host.ports_left else "failed",
            host.seconds,
            describe_stop(host),
        )
        for host in report.hosts
    ]


def _run_cases(error: RunFailedError) -> list[Case]:
    failure = error.failure
    diagnosis = failure.diagnosis
    host = failure.error.host if isinstance(failure.error, HostError) else ""
    lines = [str(failure.error), *([str(diagnosis)] if diagnosis else [])]
    first = str(failure.error).splitlines()
    message = first[0] if first else type(failure.error).__name__
    return [
        Case("run", diagnosis.host if diagnosis and not host else host, "failed", message=message, lines=tuple(lines))
    ]
