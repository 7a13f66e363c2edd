"""The phases of a smoke test, and its result."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from flagscale_deploy import api
from flagscale_deploy.api.cases import Case, versions_of
from flagscale_deploy.api.checking import fault_of
from flagscale_deploy.api.request import PlanOptions, Request
from flagscale_deploy.api.reserving import check_until_room
from flagscale_deploy.deploy.bring_up import RunFailedError
from flagscale_deploy.deploy.stop import StopReport
from flagscale_deploy.deploy.stop import describe as describe_stop
from flagscale_deploy.errors import BusyError, CheckError, DeployError, FaultsError, HostError, InterruptedByUser
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.logs import FileSelection
from flagscale_deploy.logs.redact import redact_folder
from flagscale_deploy.remote.messages.status import ChatCompletion
from flagscale_deploy.remote.wire import cut
from flagscale_deploy.secrets import Redactor
from flagscale_deploy.support.interrupts import held_back
from flagscale_deploy.support.paths import write_file
from flagscale_deploy.support.units import counted
from flagscale_deploy.text import plain
from flagscale_deploy.transport.fleet import answers, failures
from flagscale_deploy.transport.replies import brief

SHOWN = 200
"""Characters of an answer that a case shows."""
KEPT_LOGS = FileSelection(max_total=4 << 30, seconds=900.0)
"""How much of each host's logs is kept: all of it is looked through for secrets, and no interrupt ends that."""
PHASES = ("check", "run", "prompt", "status", "logs", "stop", "clean")


@dataclass(frozen=True)
class Prompt:
    """A prompt and what its answer must be: `expect` is a regular expression that is searched in the text."""

    text: str
    expect: str | None = None
    min_tokens: int = 1
    max_tokens: int = 128


@dataclass
class Smoke:
    """The result of a smoke test, by phase; `exit_code` is that of the first phase that failed, 0 if none did."""

    deployment: str
    artifacts: Path
    cases: list[Case] = field(default_factory=list)
    exit_code: int = 0
    properties: dict[str, str] = field(default_factory=dict)
    """What was tested: deployment, run id, versions, endpoints, seconds to the first token; as far as known."""

    def __post_init__(self) -> None:
        self.properties.setdefault("deployment", self.deployment)

    @property
    def passed(self) -> bool:
        """Return whether no phase failed."""
        return self.exit_code == 0

    def json(self) -> dict[str, object]:
        """Return what `smoke --json` prints."""
        return {
            "schema": 1,
            "deployment": self.deployment,
            "passed": self.passed,
            "exit_code": self.exit_code,
            "artifacts": str(self.artifacts),
            "properties": self.properties,
            "cases": [asdict(case) for case in self.cases],
        }


@dataclass
class Phases:
    """The phases of a smoke test, each a method that returns its cases."""

    request: Request
    result: Smoke
    options: PlanOptions
    lock_wait: float
    redactor: Redactor
    say: Sink
    note: Callable[[], None]
    """Called after each phase."""
    started: bool = False
    """Whether a start was tried; a run refused by another command's lock or deployment leaves nothing to stop."""
    interrupted: bool = False
    answers: str = ""
    """The content of prompts.txt."""

    def phase(self, name: str, act: Callable[[], list[Case]], number: int | None = None) -> bool:
        """Run a phase and record its cases; return whether it passed."""
        began = time.monotonic()
        code = 0
        try:
            self.say(Event("smoke", "note", text=f"── {name}"))
            cases = act()
        except RunFailedError as error:
            cases, code = _run_cases(error), error.exit_code
            self.result.properties["run_id"] = error.folder.path.name
        except KeyboardInterrupt:
            cases, code = [Case(name, "", "failed", message="interrupted")], InterruptedByUser.exit_code
        except FaultsError as error:
            busy = isinstance(error, BusyError)
            cases = [
                Case(name, fault.where, "failed", message=f"{fault.problem} → {fault.remedy}", busy=busy)
                for fault in error.faults
            ]
            code = error.exit_code
        except DeployError as error:
            host = error.host if isinstance(error, HostError) else ""
            cases, code = [Case(name, host, "failed", message=error.lines[0], lines=error.lines[1:])], error.exit_code
        took = time.monotonic() - began
        self.result.cases += [
            replace(case, seconds=0.0 if at else took, number=number) for at, case in enumerate(cases)
        ]
        failed = [case for case in cases if case.state == "failed"]
        self.interrupted |= code == InterruptedByUser.exit_code
        if failed and not self.result.exit_code:
            self.result.exit_code = code or 1
        self.note()
        return not failed

    def check(self) -> list[Case]:
        """Check the hosts; refuse a deployment that runs already."""
        running = api.status(self.request, ask=False)
        if running.live_processes:
            raise CheckError.at(
                self.request.deployment,
                f"it runs already (run {running.run_id} of {running.operator}); `smoke` leaves it alone",
                "stop it, or choose another --name",
            )
        look = partial(api.check, self.request, self.options, say=self.say)
        report, left = check_until_room(look, self.options.wait, self.say)
        self.options = replace(self.options, wait=left)
        self.result.properties.update(versions_of(report.observations))
        problems: dict[str, list[str]] = {}
        for fault in map(fault_of, report.failed):
            problems.setdefault(fault.where, []).append(" → ".join(filter(None, (fault.problem, fault.remedy))))
        cases = [
            Case("check", name, "failed" if name in problems else "passed", message="; ".join(problems.pop(name, ())))
            for name in report.observations
        ]
        cases += [Case("check", where, "failed", message="; ".join(texts)) for where, texts in problems.items()]
        self.result.exit_code = report.exit_code
        return [replace(case, busy=report.busy and case.state == "failed") for case in cases]

    def start(self) -> list[Case]:
        """Bring the deployment up."""
        result = api.run(
            self.request,
            self.options,
            lock_wait=self.lock_wait,
            redactor=self.redactor,
            say=self._note_start,
            command="smoke: run",
        )
        if result.up is None or result.plan is None:
            raise CheckError.at(self.request.deployment, "it runs already: another command has just started it")
        ready_after = result.up.ready_after
        self.result.properties["run_id"] = result.plan.run_id
        self.result.properties["endpoint"] = ", ".join(endpoint for endpoint, _ in result.endpoints)
        self.result.properties["seconds_to_first_token"] = f"{max(ready_after.values(), default=0.0):.3f}"
        return [
            Case(
                "run",
                instance.driver,
                "passed",
                message=f"{instance.name} at {instance.endpoint}, "
                f"ready {ready_after[instance.name]:.1f} s after its start",
            )
            for instance in result.plan.instances
        ]

    def _note_start(self, event: Event) -> None:
        """Note that a start is tried: a finished plan is the last event before the first change on a host."""
        self.started |= (event.stage, event.state) == ("plan", "done")
        self.say(event)

    def ask(self, prompt: Prompt) -> list[Case]:
        """Send a prompt, keep the answer in prompts.txt, and compare it with what is expected."""
        answer = api.call(self.request, [{"role": "user", "content": prompt.text}], max_tokens=prompt.max_tokens)
        text, tokens = _completion(answer)
        prompts = self.result.artifacts / "prompts.txt"
        written = f"{_quoted('> ', prompt.text)}{_quoted('  ', text)}({counted(tokens, 'token')})\n\n"
        self.answers += plain(self.redactor.redact(self.redactor.seen(written))).encode(errors="replace").decode()
        write_file(prompts, self.answers, "answers")  # as a new file each time: another user may have made that name
        problem = ""
        if tokens < prompt.min_tokens:
            problem = f"{counted(tokens, 'token')} came, expected at least {prompt.min_tokens}"
        elif prompt.expect is not None and re.search(prompt.expect, text) is None:
            problem = f"the answer does not match {prompt.expect!r}"
        reply = f"{counted(tokens, 'token')}: {cut(text, SHOWN)!r}"
        return [
            Case("prompt", "", "failed" if problem else "passed", message=f"{problem}: {reply}" if problem else reply)
        ]

    def status(self) -> list[Case]:
        """Require every host to run its part."""
        current = api.status(self.request)
        return [
            Case(
                "status",
                host.host,
                "passed" if current.state in ("ready", "finished") and host.state == "running" else "failed",
                message=f"deployment {current.state}, host {host.state} {host.problem}".strip(),
            )
            for host in current.hosts
            if host.roles or host.state == "UNKNOWN"
        ]

    def logs(self) -> list[Case]:
        """Collect all logs into the artifacts."""
        collected = api.collect(
            self.request, self.result.artifacts / "logs", selection=replace(KEPT_LOGS, redactor=self.redactor)
        )
        cases = []
        for name, logs in answers(collected).items():
            size = f"{counted(len(logs.files), 'file')}, {counted(logs.bytes, 'byte')}"
            limit = f"; {logs.limit.partition(';')[0]}" if logs.limit else ""
            cases.append(Case("logs", name, "passed", message=size + limit))
        failed = failures(collected).items()
        return cases + [
            Case("logs", name, "failed", message=error.lines[0], lines=error.lines[1:]) for name, error in failed
        ]

    def redact(self, folders: Sequence[Path]) -> None:
        """Hide secrets in all that CI gets: a program may have printed its key. An interrupt does not end it."""
        try:
            with held_back():
                self._redact(folders)
        except KeyboardInterrupt:
            self.result.exit_code = self.result.exit_code or InterruptedByUser.exit_code

    def _redact(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            for path, why in redact_folder(folder, self.redactor).items():
                message = f"{path} was removed, because secrets in it could not be hidden: {why}"
                self.result.cases.append(Case("logs", "", "failed", message=message))
                self.result.exit_code = self.result.exit_code or 1

    def stop(self) -> list[Case]:
        """Stop the deployment on all hosts."""
        return _stop_cases("stop", api.stop(self.request, force=True, say=self.say, command="smoke: stop"))

    def clean(self) -> list[Case]:
        """Remove what is left, and require every host to be clean."""
        cases = _stop_cases("clean", api.cleanup(self.request, force=True, say=self.say, command="smoke: cleanup"))
        left = api.status(self.request, ask=False)
        cases += [
            Case("clean", host.host, "failed", message=f"{host.state}: {counted(host.processes, 'process')} left")
            for host in left.hosts
            if host.state != "absent"
        ]
        return cases


def _quoted(mark: str, text: str) -> str:
    """Return text with a mark before each of its lines, so that none looks like what stands around it."""
    return "".join(f"{mark}{line}\n" for line in text.split("\n"))


def _completion(answer: ChatCompletion) -> tuple[str, int]:
    """Return text and number of tokens of a chat completion. Raises DeployError for anything else."""
    try:
        return str(answer["choices"][0]["message"]["content"] or ""), int(answer["usage"]["completion_tokens"])
    except (LookupError, TypeError, ValueError) as error:
        raise DeployError(f"the server's answer is not a chat completion: {brief(str(answer))}") from error


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
    lines = (*failure.error.lines, *(diagnosis.lines if diagnosis else ()))
    message = error.lines[0]
    return [Case("run", diagnosis.host if diagnosis and not host else host, "failed", message=message, lines=lines)]
