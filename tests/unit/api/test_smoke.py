"""A smoke deploy over functions in the place of the api: what it makes of their answers, and what it takes down."""

from __future__ import annotations

import json
import os
import re
import signal
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flagscale_deploy import __version__, api
from flagscale_deploy.api import smoke as module
from flagscale_deploy.api import smoke_phases
from flagscale_deploy.api.cases import Case
from flagscale_deploy.api.request import Options, Request
from flagscale_deploy.api.smoke import PHASES, Kept, Prompt, Smoke, smoke
from flagscale_deploy.checks.types import Verdict
from flagscale_deploy.cli import cli
from flagscale_deploy.deploy.bring_up import BroughtUp, Failure, RunFailedError
from flagscale_deploy.deploy.run_folder import RunFolder
from flagscale_deploy.deploy.status import HostStatus, Status
from flagscale_deploy.deploy.stop import HostStop, StopReport
from flagscale_deploy.diagnosis.find import Diagnosis
from flagscale_deploy.errors import (
    CheckError,
    DeployError,
    Fault,
    InputError,
    InterruptedByUser,
    LockedError,
    RemoteError,
    UnreachableError,
)
from flagscale_deploy.events import Event, silent
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.logs import Collected, FileSelection
from flagscale_deploy.logs.redact import redact_folder
from flagscale_deploy.output import check as view_of_check
from flagscale_deploy.output import smoke as view
from flagscale_deploy.output.junit import write_junit
from flagscale_deploy.secrets import Redactor, Secret
from tests.other_user import needs_root
from tests.unit.deploy.given import PLAN
from tests.unit.plan.given import inventory, spec

REQUEST = Request(inventory("gpu01", "gpu02"), spec(), "qwen", Options())


def status_of(state: str, *hosts: HostStatus) -> Status:
    return Status("qwen", state, "run-1", "sha256:1", "gpu01", "bob@ops", 1.0, None, hosts, ())


class Stage:
    """The api, as one test wants it; `calls` has what was called in order."""

    def __init__(self, folder: Path) -> None:
        self.calls: list[str] = []
        self.folder = folder
        self.before = status_of("absent", HostStatus("gpu01", "absent"), HostStatus("gpu02", "absent"))
        self.during = status_of(
            "ready", HostStatus("gpu01", "running", ("engine",), 14), HostStatus("gpu02", "running", ("ray-worker",), 6)
        )
        self.after = self.before
        self.report = api.CheckReport({name: Observation(name, Facts()) for name in ("gpu01", "gpu02")})
        self.run: Callable[[Any], api.RunResult] = self.well
        self.answer: Callable[[], dict[str, Any]] = lambda: {
            "choices": [{"message": {"content": "I am Qwen."}}], "usage": {"completion_tokens": 5},
        }  # fmt: skip
        self.stopped = StopReport((HostStop("gpu01", "stopped", 14), HostStop("gpu02", "stopped", 6)))

    def well(self, say: Any) -> api.RunResult:
        say(Event("plan", "done"))
        return api.RunResult(PLAN, None, BroughtUp({"qwen/0": 1.5}), RunFolder(self.folder, str), (), False)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def status(_request: Request, *, ask: bool = True) -> Status:
            self.calls.append("status")
            return self.during if ask else self.after if "cleanup" in self.calls else self.before

        def noted(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
            def called(*_words: Any, **settings: Any) -> Any:
                self.calls.append(name)
                return act(settings)

            return called

        collected = {name: Collected(name, self.folder, (("logs/e", 7),)) for name in ("gpu01", "gpu02")}
        monkeypatch.setattr(api, "status", status)
        monkeypatch.setattr(api, "check", noted("check", lambda _: self.report))
        monkeypatch.setattr(api, "run", noted("run", lambda settings: self.run(settings["say"])))
        monkeypatch.setattr(api, "call", noted("call", lambda _: self.answer()))
        monkeypatch.setattr(api, "collect", noted("collect", lambda _: collected))
        monkeypatch.setattr(api, "stop", noted("stop", lambda _: self.stopped))
        monkeypatch.setattr(api, "cleanup", noted("cleanup", lambda _: self.stopped))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(tmp_path)
    made.install(monkeypatch)
    return made


def go(stage: Stage, *prompts: Prompt) -> Smoke:
    return smoke(REQUEST, prompts or (Prompt("Who are you?"),), Kept(stage.folder / "artifacts"), say=silent)


def states(result: Smoke) -> dict[str, str]:
    """Return the worst state of each phase."""
    worst = ("passed", "skipped", "failed")
    return {
        phase: max((case.state for case in result.cases if case.phase == phase), key=worst.index) for phase in PHASES
    }


TAKEN_DOWN = ["collect", "stop", "cleanup", "status"]


def test_all_phases_pass_in_their_order(stage: Stage) -> None:
    result = go(stage)
    assert (result.passed, result.exit_code) == (True, 0)
    assert states(result) == dict.fromkeys(PHASES, "passed")
    assert stage.calls == ["status", "check", "run", "call", "status", *TAKEN_DOWN]
    assert [(case.phase, case.host) for case in result.cases] == [
        ("check", "gpu01"), ("check", "gpu02"), ("run", "gpu01"), ("prompt", ""), ("status", "gpu01"),
        ("status", "gpu02"), ("logs", "gpu01"), ("logs", "gpu02"), ("stop", "gpu01"), ("stop", "gpu02"),
        ("clean", "gpu01"), ("clean", "gpu02"),
    ]  # fmt: skip
    assert "I am Qwen." in (stage.folder / "artifacts" / "prompts.txt").read_text()
    assert json.loads(json.dumps(result.json()))["passed"] is True


def test_an_answer_neither_moves_the_cursor_nor_looks_like_a_prompt(stage: Stage) -> None:
    text = "a\x1b[2Jb\x9b1m\r\n(5 tokens)\n\n> faked\u2028\x85\ud800 hf_Canary\x1b[1mCanaryCanary0123"
    stage.answer = lambda: {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 5}}
    go(stage, Prompt("Who?\nYou."))
    content = (stage.folder / "artifacts" / "prompts.txt").read_bytes().decode()
    assert content.isascii()
    assert content.replace("\n", "").isprintable()
    assert [line[:2] for line in content.splitlines()] == ["> ", "> ", "  ", "  ", "  ", "  ", "(5", ""]
    assert "Canary" not in content


def test_the_time_of_a_run_is_all_of_it_and_not_the_engine_s_alone(stage: Stage) -> None:
    (case,) = (case for case in go(stage).cases if case.phase == "run")
    assert 0 < case.seconds < 30
    assert case.message.endswith("ready 1.5 s after its start")


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        (Prompt("?", expect="Qwen"), ""),
        (Prompt("?", expect=r"^Llama"), "the answer does not match '^Llama'"),
        (Prompt("?", min_tokens=6), "5 tokens came, expected at least 6"),
    ],
)
def test_an_answer_has_to_be_what_was_expected(stage: Stage, prompt: Prompt, problem: str) -> None:
    result = go(stage, prompt)
    (case,) = (case for case in result.cases if case.phase == "prompt")
    assert case.state == ("failed" if problem else "passed")
    assert case.message.startswith(problem)
    assert "I am Qwen." in case.message
    assert result.exit_code == (1 if problem else 0)
    assert stage.calls[-4:] == TAKEN_DOWN


@pytest.mark.parametrize(
    "answer", [{}, {"choices": []}, {"choices": [{"message": None}], "usage": None}, {"error": "no"}]
)
def test_an_answer_that_is_no_completion_fails_the_prompt_and_takes_down(stage: Stage, answer: dict[str, Any]) -> None:
    stage.answer = lambda: answer
    result = go(stage)
    assert states(result)["prompt"] == "failed"
    assert stage.calls[-4:] == TAKEN_DOWN


def failed_run(stage: Stage, error: DeployError) -> Callable[[Any], api.RunResult]:
    def run(say: Any) -> api.RunResult:
        say(Event("plan", "done"))
        diagnosis = Diagnosis("gpu02", "e.log", "CUDA out of memory", "does not fit", "buy more")
        raise RunFailedError(Failure(error, diagnosis), RunFolder(stage.folder, str), "qwen")

    return run


def test_a_run_that_fails_skips_prompts_keeps_logs_and_takes_down(stage: Stage) -> None:
    stage.run = failed_run(stage, RemoteError("gpu01", "qwen/0 ended\n    CUDA out of memory"))
    result = go(stage)
    assert result.exit_code == 1
    assert states(result) == {
        "check": "passed", "run": "failed", "prompt": "skipped", "status": "skipped", "logs": "passed",
        "stop": "passed", "clean": "passed",
    }  # fmt: skip
    (case,) = (case for case in result.cases if case.phase == "run")
    assert case.host == "gpu01"
    assert any("CUDA out of memory" in line for line in case.lines)
    assert any("buy more" in line for line in case.lines)
    assert stage.calls[-4:] == TAKEN_DOWN


def test_what_ran_before_is_left_alone(stage: Stage) -> None:
    stage.before = status_of("ready", HostStatus("gpu01", "running", ("engine",), 14))
    result = go(stage)
    assert result.exit_code == 4
    assert stage.calls == ["status"]
    assert "run run-1 of bob@ops" in result.cases[0].message


def refused(error: Exception) -> Callable[[Any], api.RunResult]:
    def run(_say: Any) -> api.RunResult:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LockedError("gpu01", "qwen is locked: bob@ops is doing run"), 6),
        (CheckError([Fault("qwen", "it runs already, but is starting")]), 4),
        (UnreachableError("gpu01", "no answer"), 3),
        (KeyboardInterrupt(), 130),
    ],
    ids=["locked", "started meanwhile", "unreachable", "interrupted before its start"],
)
def test_nothing_is_taken_down_where_nothing_of_ours_was_started(stage: Stage, error: Exception, code: int) -> None:
    stage.run = refused(error)
    result = go(stage)
    assert result.exit_code == code
    assert stage.calls == ["status", "check", "run"]
    assert states(result)["stop"] == "skipped"


def test_what_somebody_else_has_just_started_is_left_alone(stage: Stage) -> None:
    stage.run = lambda _say: api.RunResult(None, stage.during, None, None, (), False)
    result = go(stage)
    assert result.exit_code == 4
    assert stage.calls == ["status", "check", "run"]


def test_a_check_that_says_no_ends_it(stage: Stage) -> None:
    stage.report = api.CheckReport(
        stage.report.observations,
        (Verdict("gpu-count", "failed", "gpu02", "no GPU"), Verdict("same-ray", "failed", "", "differs")),
    )
    result = go(stage)
    assert result.exit_code == 4
    assert stage.calls == ["status", "check"]
    assert [(case.host, case.state) for case in result.cases if case.phase == "check"] == [
        ("gpu01", "passed"), ("gpu02", "failed"), ("same-ray", "failed"),
    ]  # fmt: skip


def test_an_interruption_during_a_prompt_asks_no_more_and_takes_down(stage: Stage) -> None:
    def interrupted() -> dict[str, Any]:
        raise KeyboardInterrupt

    stage.answer = interrupted
    result = go(stage, Prompt("one"), Prompt("two"))
    assert result.exit_code == InterruptedByUser.exit_code
    assert stage.calls == ["status", "check", "run", "call", *TAKEN_DOWN]


@pytest.mark.parametrize("phase", ["prompt", "status", "logs", "stop", "clean"])
def test_an_interruption_as_a_phase_begins_takes_down_and_redacts(stage: Stage, phase: str) -> None:
    begun: list[str] = []

    def say(event: Event) -> None:
        if event.text == f"── {phase}" and not begun:
            begun.append(phase)
            raise KeyboardInterrupt

    logs = stage.folder / "artifacts" / "logs"
    logs.mkdir(parents=True)
    (logs / "engine.log").write_text("the key is s3cret-s3cret\n")
    kept = Kept(stage.folder / "artifacts", Redactor(["s3cret-s3cret"]))
    result = smoke(REQUEST, [Prompt("Who are you?")], kept, say=say)
    assert result.exit_code == 130
    assert {"stop", "cleanup"} & set(stage.calls)
    assert "s3cret" not in (logs / "engine.log").read_text()


def test_an_interrupt_does_not_end_the_redaction(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    redacted = []

    def redact(folder: Path, _redactor: Any) -> dict[Path, str]:
        signal.raise_signal(signal.SIGINT)
        redacted.append(folder)
        return {}

    monkeypatch.setattr(smoke_phases, "redact_folder", redact)
    try:
        result = go(stage)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.exit_code, redacted) == (130, [stage.folder / "artifacts" / "logs"])
    assert (stage.folder / "artifacts" / "smoke.json").exists()


@pytest.mark.parametrize("name", ["logs", "runs"])
def test_no_file_outside_the_artifacts_is_rewritten_through_a_link(stage: Stage, name: str) -> None:
    """A repository may hold the link."""
    home, artifacts = stage.folder / "home", stage.folder / "artifacts"
    (home / "new").mkdir(parents=True)
    (home / "new" / ".env").write_text("HF_TOKEN=s3cret-s3cret")
    artifacts.mkdir()
    (artifacts / name).symlink_to(home)
    redactor = Redactor(["s3cret-s3cret"])
    kept = Kept(artifacts, redactor)
    with pytest.raises(InputError, match="is a link"):
        smoke(REQUEST, [], kept, say=silent)
    assert stage.calls == []
    assert redact_folder(artifacts / name, redactor) == {}
    assert (home / "new" / ".env").read_text() == "HF_TOKEN=s3cret-s3cret"


def test_no_result_of_an_earlier_test_is_left_where_this_one_cannot_write(stage: Stage) -> None:
    """The disk is full, or the command is killed."""
    artifacts, junit = stage.folder / "artifacts", stage.folder / "j.xml"
    artifacts.mkdir()
    for path in (artifacts / "smoke.json", junit):
        path.write_text("passed")
    (stage.folder / "q.yaml").write_text("model_args: {q: {model: /m}}")
    words = ["smoke", "-i", "gpu01,", "-c", str(stage.folder / "q.yaml"), "--artifacts", str(artifacts)]

    def killed(_say: Any) -> api.RunResult:
        assert not (artifacts / "smoke.json").exists()
        assert junit.read_text() != "passed"
        raise RecursionError

    stage.run = killed
    assert CliRunner().invoke(cli, [*words, "--junit", str(junit)]).exit_code == 1
    assert "run" in stage.calls
    for command in (["smoke", "-i", "gpu01,", "--artifacts", str(artifacts)], ["check", "-i", "gpu01,"]):
        junit.write_text("passed")
        CliRunner().invoke(cli, [*command, "-c", "missing.yaml", "--junit", str(junit)])
        assert not junit.exists() or "passed" not in junit.read_text()


def test_logs_come_into_the_artifacts_without_secrets(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Request] = []
    selections: list[FileSelection] = []

    def run(request: Request, *_: Any, say: Any, **_settings: Any) -> api.RunResult:
        requests.append(request)
        return stage.well(say)

    def collect(_request: Request, _into: Path, *, selection: FileSelection) -> dict[str, Collected]:
        selections.append(selection)
        return {}

    monkeypatch.setattr(api, "run", run)
    monkeypatch.setattr(api, "collect", collect)
    kept = Kept(stage.folder / "artifacts", Redactor())
    smoke(REQUEST, [], kept, say=silent)
    assert [request.hides_logs for request in requests] == [True]
    assert [selection.redactor for selection in selections] == [kept.redactor]


def test_no_host_fills_the_artifacts_with_logs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is read twice, and no interrupt ends that."""
    asked: list[FileSelection] = []

    def collect(_request: Request, into: Path, *, selection: FileSelection) -> dict[str, Collected]:
        asked.append(selection)
        return {"gpu01": Collected("gpu01", into, (("engine.log", 7),), limit="collecting stopped after 7 bytes; more")}

    monkeypatch.setattr(api, "collect", collect)
    result = go(stage)
    assert (asked[0].max_total, asked[0].seconds) == (4 << 30, 900)
    (case,) = [case for case in result.cases if case.phase == "logs"]
    assert case.message == "1 file, 7 bytes; collecting stopped after 7 bytes"


@needs_root
@pytest.mark.parametrize("name", ["", "logs", "runs"])
def test_artifacts_are_no_folder_that_another_user_has_put_into_tmp(stage: Stage, name: str) -> None:
    folder = stage.folder / "artifacts" / name
    folder.mkdir(parents=True)
    folder.parent.chmod(0o1777)
    os.chown(folder, 65534, 65534)
    with pytest.raises(InputError, match="is another user's: everybody may write to"):
        go(stage)
    assert stage.calls == []


@needs_root
def test_answers_are_written_in_place_of_what_has_their_name(stage: Stage) -> None:
    """Another user may put a pipe there, for which a command would wait."""
    prompts = stage.folder / "artifacts" / "prompts.txt"

    def answer() -> dict[str, Any]:
        prompts.unlink(missing_ok=True)
        os.mkfifo(prompts)
        os.chown(prompts, 65534, 65534)
        return {"choices": [{"message": {"content": "I am Qwen."}}], "usage": {"completion_tokens": 5}}

    stage.answer = answer
    result = go(stage, Prompt("one"), Prompt("two"))
    assert result.passed
    assert prompts.read_text().count("I am Qwen.") == 2


def test_an_interruption_of_the_start_takes_down(stage: Stage) -> None:
    stage.run = failed_run(stage, InterruptedByUser("interrupted"))
    result = go(stage)
    assert result.exit_code == 130
    assert stage.calls[-4:] == TAKEN_DOWN


def test_a_bug_of_ours_takes_down_too(stage: Stage) -> None:
    def bug() -> dict[str, Any]:
        raise RecursionError

    stage.answer = bug
    with pytest.raises(RecursionError):
        go(stage)
    assert stage.calls[-3:] == ["stop", "cleanup", "status"]


@pytest.mark.parametrize(
    "left",
    [HostStatus("gpu02", "running", processes=2), HostStatus("gpu02", "UNKNOWN"), HostStatus("gpu02", "stopped")],
    ids=["processes", "unknown", "state"],
)
def test_what_is_left_fails_the_proof(stage: Stage, left: HostStatus) -> None:
    stage.after = status_of("leftovers", HostStatus("gpu01", "absent"), left)
    result = go(stage)
    assert states(result)["clean"] == "failed"
    assert result.exit_code != 0


def test_survivors_and_held_ports_fail_the_stop(stage: Stage) -> None:
    stage.stopped = StopReport((
        HostStop("gpu01", "survivors", survivors=({"pid": 1, "command": "x", "state": "S", "why": "y"},)),
        HostStop("gpu02", "stopped", 1, ports_left=({"port": 1, "pid": None, "command": "nginx"},)),
    ))  # fmt: skip
    result = go(stage)
    assert [case.state for case in result.cases if case.phase == "stop"] == ["failed", "failed"]


def test_not_ready_fails_the_status(stage: Stage) -> None:
    stage.during = status_of("unwell", HostStatus("gpu01", "running", ("engine",), 14))
    assert states(go(stage))["status"] == "failed"


def test_a_phase_s_time_counts_once(stage: Stage) -> None:
    result = go(stage)
    assert [case.host for case in result.cases if case.seconds] == [
        "gpu01",
        "gpu01",
        "",
        "gpu01",
        "gpu01",
        "gpu01",
        "gpu01",
    ]


def test_the_properties_say_what_was_tested(stage: Stage) -> None:
    stage.report = api.CheckReport({
        "gpu01": Observation("gpu01", Facts(python="3.11.7", ray="2.60.0", vllm="0.32.0")),
        "gpu02": Observation("gpu02", Facts(python="3.12.1", ray="2.60.0")),
    })  # fmt: skip
    assert go(stage).properties == {
        "deployment": "qwen", "flagscale-deploy": __version__, "python": "3.11.7, 3.12.1", "ray": "2.60.0",
        "vllm": "0.32.0", "run_id": PLAN.run_id, "endpoint": "", "seconds_to_first_token": "1.500",
    }  # fmt: skip


def test_a_report_is_made_after_each_phase_with_all_phases_in_it(stage: Stage) -> None:
    reports: list[Smoke] = []
    smoke(REQUEST, [Prompt("one"), Prompt("two")], Kept(stage.folder, report=reports.append))
    assert [sum(case.state == "skipped" for case in report.cases) for report in reports] == [6, 5, 4, 4, 3, 2, 1, 0]
    assert {tuple(dict.fromkeys(case.phase for case in report.cases)) for report in reports} == {PHASES}


def test_the_command_writes_its_junit_file_after_each_phase(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    (tmp_path / "hosts.yaml").write_text("hosts: [{name: gpu01, address: 10.0.0.1}]\n")
    (tmp_path / "qwen.yaml").write_text("model_args: {q: {model-tag: /m}}\ndeploy: {models: {q: {num_gpus: 0}}}\n")
    path, seen = tmp_path / "smoke.xml", []

    def answer() -> dict[str, Any]:
        seen.append([case.get("classname") for case in ET.parse(path).iter("testcase") if case.find("skipped") is None])
        return {"choices": [{"message": {"content": "I am Qwen."}}], "usage": {"completion_tokens": 5}}

    stage.answer = answer
    words = ["-i", str(tmp_path / "hosts.yaml"), "-c", str(tmp_path / "qwen.yaml"), "--name", "job-4711"]
    words += ["--junit", str(path), "--artifacts", str(tmp_path / "artifacts")]
    result = CliRunner().invoke(cli, ["smoke", *words, "--prompt", "one", "--prompt", "two"])
    assert result.exit_code == 0, result.output
    checked = ["smoke.check", "smoke.check", "smoke.run"]
    assert seen == [checked, [*checked, "smoke.prompt"]]
    assert faults_by_jenkins(ET.parse(path).getroot()) == []
    assert {case.get("classname") for case in ET.parse(path).iter("testcase")} == {f"smoke.{phase}" for phase in PHASES}


def test_the_junit_file_does_not_wait_for_the_result_to_be_taken(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard output may be a full disk, or a terminal that was stopped."""

    def refuse(*_: object) -> None:
        raise DeployError("the result cannot be written to standard output")

    (tmp_path / "q.yaml").write_text("model_args: {q: {model: /m}}")
    for name in ("show_smoke", "show_check"):
        monkeypatch.setattr(view if name == "show_smoke" else view_of_check, name, refuse)
        path = tmp_path / f"{name}.xml"
        command = ["smoke", "--artifacts", str(tmp_path / "a")] if name == "show_smoke" else ["check"]
        words = ["-i", "gpu01,", "-c", str(tmp_path / "q.yaml"), "--junit", str(path)]
        assert CliRunner().invoke(cli, [*command, *words]).exit_code == 1
        cases = list(ET.parse(path).iter("testcase"))
        assert cases or name == "show_check"
        assert not [case for case in cases if case.find("skipped") is not None]


def test_a_report_that_cannot_be_written_ends_nothing(stage: Stage) -> None:
    def full(_result: Smoke) -> None:
        raise InputError.at("smoke.xml", "the JUnit file cannot be written there: No space left on device")

    assert smoke(REQUEST, [Prompt("one")], Kept(stage.folder, report=full)).passed
    assert stage.calls[-4:] == TAKEN_DOWN


HOSTILE = "a <b> & \"c\" 'd' \x00\x1b[31m\x0b\ufffe\ud800 ü \U0001f600 ]]> key-s3cret"


def test_junit_is_xml_whatever_the_texts_and_hides_secrets(tmp_path: Path) -> None:
    cases = [
        Case("check", "gpu01", "passed", 0.5, "ok"),
        Case("run", HOSTILE, "failed", 1.25, HOSTILE, (HOSTILE, "second")),
        Case("prompt", "", "skipped", message=HOSTILE),
    ]
    path = tmp_path / "deep" / "junit.xml"
    write_junit(f"qwen {HOSTILE}", cases, path, lambda text: text.replace("key-s3cret", "[REDACTED]"))
    suites = ET.parse(path).getroot()
    (suite,) = suites
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "3", "failures": "1", "errors": "0", "skipped": "1", "time": "1.750",
    }  # fmt: skip
    passed, failed, skipped = suite
    assert (passed.get("name"), passed.get("classname"), passed.get("time")) == (
        "check [gpu01]", suite.get("name", "") + ".check", "0.500",
    )  # fmt: skip
    assert faults_by_jenkins(suites) == []
    failure = failed.find("failure")
    assert failure is not None
    assert failure.get("message", "").startswith("a <b> & \"c\" 'd' ")
    assert (failure.text or "").endswith("\nsecond")
    assert skipped.find("skipped") is not None
    assert "s3cret" not in path.read_text()
    assert "\U0001f600" in path.read_text()


TEXT, TIME = ".*", r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?"
ELEMENTS: dict[str, tuple[set[str], dict[str, str], set[str]]] = {
    "testsuites": ({"testsuite"}, {"name": TEXT, "time": TIME, "tests": TEXT, "failures": TEXT, "errors": TEXT}, set()),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        dict.fromkeys(["name", "tests", "failures", "errors", "group", "skipped", "timestamp", "hostname", "id",
                       "package", "file", "log", "url"], TEXT) | {"time": TIME},
        {"name", "tests", "failures", "errors"},
    ),
    "properties": ({"property"}, {}, set()),
    "property": (set(), {"name": TEXT, "value": TEXT}, {"name", "value"}),
    "testcase": (
        {"skipped", "error", "failure", "system-out", "system-err"},
        {"name": TEXT, "time": TEXT, "classname": TEXT, "group": TEXT},
        {"name"},
    ),
    **dict.fromkeys(["failure", "error", "skipped"], (set(), {"type": TEXT, "message": TEXT}, set())),
    **dict.fromkeys(["system-out", "system-err"], (set(), {}, set())),
}  # fmt: skip
"""By element, what junit-10.xsd of Jenkins' xUnit plugin allows below it, its attributes, and those it must have."""


def faults_by_jenkins(element: ET.Element) -> list[str]:
    below, attributes, required = ELEMENTS[element.tag]
    faults = [f"<{child.tag}> in <{element.tag}>" for child in element if child.tag not in below]
    faults += [f"{element.tag} lacks {name}" for name in required - {*element.attrib}]
    faults += [f"{name}={value!r} of <{element.tag}>" for name, value in element.attrib.items()
               if re.fullmatch(attributes.get(name, "(?!)"), value, re.DOTALL) is None]  # fmt: skip
    return faults + [fault for child in element if child.tag in ELEMENTS for fault in faults_by_jenkins(child)]


def test_junit_is_valid_by_jenkins_and_gitlab_tells_all_cases_apart(tmp_path: Path) -> None:
    cases = [
        Case("ports", "gpu01", "failed", 1234.5, "8000"), Case("ports", "gpu01", "failed", message="8001"),
        Case("ports", "gpu02", "passed"), Case("ports", "", "skipped", message="why"),
    ]  # fmt: skip
    for deployment in ("smoke-1", "smoke-2"):
        properties = {"deployment": deployment, "endpoint": HOSTILE}
        write_junit("check", cases, tmp_path / f"{deployment}.xml", str, properties)
    roots = [ET.parse(path).getroot() for path in sorted(tmp_path.iterdir())]
    assert [faults_by_jenkins(root) for root in roots] == [[], []]
    assert [[(case.get("classname"), case.get("name")) for case in root.iter("testcase")] for root in roots] == 2 * [
        [("check.ports", "ports [gpu01]"), ("check.ports", "ports [gpu01] (2)"), ("check.ports", "ports [gpu02]"),
         ("check.ports", "ports")],
    ]  # fmt: skip
    assert [[entry.get("name") for entry in root.iter("property")] for root in roots] == 2 * [
        ["deployment", "endpoint"]
    ]
    assert [child.tag for child in roots[0][0]] == ["properties", *["testcase"] * 4]


def test_the_phases_are_those_of_the_design() -> None:
    assert module.PHASES == ("check", "run", "prompt", "status", "logs", "stop", "clean")


def test_what_is_made_for_ci_holds_no_key(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    key, artifacts = "s3cr3t-Key-0123456789", stage.folder / "artifacts"
    request = Request(inventory("gpu01", "gpu02"), replace(spec(), secret_env={"VLLM_API_KEY": Secret(key)}), "qwen",
                      Options())  # fmt: skip
    earlier = artifacts / "runs" / "earlier"
    earlier.mkdir(parents=True)
    (earlier / "theirs.log").write_text(key)

    def collect(_request: Request, into: Path, **_settings: Any) -> dict[str, Collected]:
        for folder in (into / "gpu01", artifacts / "runs" / "run-1" / "logs" / "gpu01"):
            folder.mkdir(parents=True)
            (folder / "engine.log").write_text(f"args: {{'api_key': ['{key}']}}\n")
        return {"gpu01": Collected("gpu01", into, (("engine.log", 7),))}

    monkeypatch.setattr(api, "collect", collect)
    stage.answer = lambda: {
        "choices": [{"message": {"content": f"my key is {key}"}}],
        "usage": {"completion_tokens": 5},
    }
    result = smoke(request, [Prompt(f"is it {key}?")], Kept(artifacts), say=silent)
    assert states(result)["logs"] == "passed"
    texts = {path: path.read_text() for path in artifacts.rglob("*") if path.is_file()}
    assert [path for path, text in texts.items() if key in text] == [earlier / "theirs.log"], "not of this test"
    assert sum("[REDACTED]" in text for text in texts.values()) >= 4
