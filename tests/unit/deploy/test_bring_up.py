from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.deploy import bring_up as module
from flagscale_deploy.deploy.bring_up import BroughtUp, Run, RunFailedError, bring_up, failure_json
from flagscale_deploy.deploy.run_folder import RunFolder
from flagscale_deploy.errors import InterruptedByUser, UnreachableError
from flagscale_deploy.events import Event, Sink
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.remote.supervisor.membership import token_file
from flagscale_deploy.secrets import Redactor, Secret
from tests.fakes import FakeFleet, Output
from tests.unit.deploy.given import HOSTS, PLAN, Heard, answering, archived, launched
from tests.unit.plan.given import inventory, model, planned, seen, spec

SECRET = Secret("hf_very_secret")
SPEC = spec(model(tp=16, port=4567), secret_env={"HF_TOKEN": SECRET})


def ready(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    yield {"ready": True, "token": "x"}


def dies(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    yield {"lines": ["torch.OutOfMemoryError: CUDA out of memory.", f"token was {SECRET.reveal()}"]}
    yield {"dead": True}


def archive(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
    text = b"INFO ok\ntorch.OutOfMemoryError: CUDA out of memory.\n"
    yield from archived({"logs/vllm_serve_qwen_0.log": text})


def stop(_host: Host, args: dict[str, Any]) -> Iterable[Output]:
    yield {"event": "done", "ended": 3, "survivors": [], "ports_left": [], "segments": 0, "seconds": 0.1,
               "after_stop": None, "unclosed": ""}  # fmt: skip


class Bench:
    """A deployment being brought up on hosts that are functions."""

    def __init__(self, folder: Path, **modules: Any) -> None:
        self.fleet = FakeFleet(answering(**{"watch": ready, "archive": archive, "stop": stop, **modules}), HOSTS)
        self.folder = RunFolder.make(str(folder), "run-1", lambda text: text)
        self.redactor = Redactor()
        self.heard = Heard()

    def run(self, *, keep: bool = False, say: Sink | None = None) -> BroughtUp:
        run = Run(PLAN, SPEC, self.fleet, self.folder, self.redactor, say or self.heard)
        return bring_up(run, seen(*HOSTS), keep_on_failure=keep)

    def fails(self, *, keep: bool = False, say: Sink | None = None) -> RunFailedError:
        with pytest.raises(RunFailedError) as raised:
            self.run(keep=keep, say=say)
        return raised.value

    @property
    def modules(self) -> list[str]:
        """The programs that were sent, repetitions left out, and what only looks on."""
        return list(dict.fromkeys(call.module for call in self.fleet.calls if call.module != "watch_ranks"))


def test_what_goes_well_is_left_running(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert list(bench.run().ready_after) == ["qwen/0"]
    assert bench.modules == ["launch", "watch"]


def test_secrets_go_to_the_hosts_in_files_and_are_hidden_from_then_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run()
    files = bench.fleet.sent("launch")[0].args["files"]
    assert files["secrets/env"] == ["HF_TOKEN=hf_very_secret\n", "600"]
    token, mode = files["secrets/ray_token"]
    assert (len(token), mode) == (64, "600")
    assert bench.redactor.redact(f"{token} {SECRET.reveal()}") == "[REDACTED] [REDACTED]"


def test_the_ray_token_is_a_new_one_each_time(tmp_path: Path) -> None:
    tokens = set()
    for at in range(2):
        bench = Bench(tmp_path / str(at))
        bench.run()
        tokens |= {call.args["files"]["secrets/ray_token"][0] for call in bench.fleet.sent("launch")}
    assert len(tokens) == 2


def test_each_host_gets_the_tokens_of_its_own_ranks_and_none_of_another(tmp_path: Path) -> None:
    """Whoever has a rank's token speaks for it: in one group for all ranks, or in all groups, a host could lie."""
    names = [f"gpu0{number}" for number in range(1, 5)]
    given = spec(model("a", tp=16), model("b", tp=16, port=8001), executor="mp", restart=RestartSpec("on-failure"))
    groups = planned(inventory(*names), given)
    fleet = FakeFleet(answering(watch=ready), names)
    redactor = Redactor()
    bring_up(Run(groups, given, fleet, RunFolder.make(str(tmp_path), "run-1", str), redactor, Heard()), seen(*names))
    tokens = {}
    for call in fleet.sent("launch"):
        own = {file: text for file, (text, _) in call.args["files"].items() if file.startswith("secrets/group_")}
        ranks = [rank for instance in groups.instances for rank in instance.ranks if rank.host == call.host]
        assert own.keys() == {token_file(rank.script) for rank in ranks}
        tokens[call.host] = own.values()
    assert len({token for own in tokens.values() for token in own}) == len(names) == len(tokens)
    assert {redactor.redact(token) for own in tokens.values() for token in own} == {"[REDACTED]"}


def test_a_failure_collects_logs_finds_the_cause_and_then_takes_down(tmp_path: Path) -> None:
    bench = Bench(tmp_path, watch=dies)
    error = bench.fails()
    assert error.exit_code == 5
    assert bench.modules == ["launch", "watch", "archive", "stop"]
    assert {call.args["max_size"] for call in bench.fleet.sent("archive")} == {64 << 20}
    failure = error.failure
    assert failure.diagnosis is not None
    cause = "the model and its KV cache do not fit into GPU memory"
    assert (failure.diagnosis.host, failure.diagnosis.cause) == ("gpu01", cause)
    assert failure.logs == {"gpu01": 1, "gpu02": 1}
    assert (bench.folder.logs / "gpu02" / "logs" / "vllm_serve_qwen_0.log").is_file()
    assert failure.stopped is not None
    assert {host.state for host in failure.stopped.hosts} == {"stopped"}
    report: Any = failure_json(failure)
    assert report.pop("cause")["line"] == "torch.OutOfMemoryError: CUDA out of memory."
    assert report == {
        "error": str(failure.error), "exit_code": 5, "logs": {"gpu01": 1, "gpu02": 1}, "unread": {},
        "stopped": {"gpu01": "stopped", "gpu02": "stopped"},
    }  # fmt: skip


@pytest.mark.parametrize("hides", [False, True])
def test_logs_that_others_will_read_hold_no_secret(tmp_path: Path, hides: bool) -> None:
    def archive(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield from archived({"logs/e.log": f"INFO token {SECRET.reveal()}\nCUDA out of memory\n".encode()})

    bench = Bench(tmp_path, watch=dies, archive=archive)
    with pytest.raises(RunFailedError):
        bring_up(
            Run(PLAN, SPEC, bench.fleet, bench.folder, bench.redactor, bench.heard, hides_logs=hides), seen(*HOSTS)
        )
    texts = [path.read_text() for path in bench.folder.logs.rglob("e.log")]
    assert len(texts) == len(HOSTS)
    assert {SECRET.reveal() in text for text in texts} == {not hides}


def test_the_records_of_a_failed_run_say_why_shortly_and_without_secrets(tmp_path: Path) -> None:
    bench = Bench(tmp_path, watch=dies)
    bench.fails()
    for call in bench.fleet.sent("stop"):
        failure = call.args["failure"]
        assert failure["cause"] == "gpu01: the model and its KV cache do not fit into GPU memory"
        assert "gpu-memory-utilization" in failure["remedy"]
        assert 0 <= failure["ago"] < 60

    def leaks(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        raise UnreachableError(host.name, f"no answer to {SECRET.reveal()}\n{'x' * 1000}", "look")

    bench = Bench(tmp_path / "lost", watch=leaks, archive=lambda _host, _args: archived({}))
    bench.fails()
    causes = {call.args["failure"]["cause"] for call in bench.fleet.sent("stop")}
    (cause,) = causes
    assert cause.startswith("gpu01: no answer to [REDACTED]")
    assert (len(cause), cause[-1], "\n" in cause) == (301, "…", False)


def test_an_interrupted_run_is_recorded_as_such(tmp_path: Path) -> None:
    def interrupted(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        raise KeyboardInterrupt

    bench = Bench(tmp_path, watch=interrupted)
    bench.fails()
    assert {call.args["failure"]["cause"] for call in bench.fleet.sent("stop")} == {"interrupted"}


def test_keep_leaves_everything_as_it_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path, watch=dies)
    error = bench.fails(keep=True)
    assert bench.modules == ["launch", "watch", "archive"]
    assert error.failure.stopped is None
    assert failure_json(error.failure)["stopped"] is None


@pytest.mark.parametrize(("script", "code"), [("ray_worker.sh", 1), ("vllm_serve_qwen_0.sh", 5)])
def test_a_step_that_fails_is_taken_back(tmp_path: Path, script: str, code: int) -> None:
    def launch(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if args["script"] == script:
            yield {"log": "/l", "pid": 5, "start_ticks": 1}
            yield {"exit_code": 1, "tail": ["boom"]}
        else:
            yield from launched(host, args)

    bench = Bench(tmp_path, launch=launch)
    assert bench.fails().exit_code == code
    assert "watch" not in bench.modules
    assert bench.modules[-1] == "stop"


def test_a_host_that_is_lost_is_status_3_and_named_where_its_logs_are_missing(tmp_path: Path) -> None:
    def lost(host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        if host.name == "gpu02":
            yield UnreachableError("gpu02", "the SSH connection was lost")
        yield from archive(host, _args)

    def launch(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if host.name == "gpu02":
            yield UnreachableError("gpu02", "the SSH connection was lost")
        yield from launched(host, args)

    bench = Bench(tmp_path, launch=launch, archive=lost)
    error = bench.fails()
    assert error.exit_code == 3
    assert error.failure.unread == {"gpu02": "the SSH connection was lost"}
    assert error.failure.logs == {"gpu01": 1}


def interrupting(stage: str, heard: Heard) -> Sink:
    """Return a sink that simulates Ctrl-C in a stage, once."""
    done: list[bool] = []

    def say(event: Event) -> None:
        heard(event)
        if event.stage == stage and not done:
            done.append(True)
            raise KeyboardInterrupt

    return say


def test_ctrl_c_takes_down_and_blames_no_log(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    error = bench.fails(say=interrupting("serve", bench.heard))
    assert error.exit_code == 130
    assert isinstance(error.failure.error, InterruptedByUser)
    assert bench.modules == ["launch", "archive", "stop"]
    assert error.failure.diagnosis is None
    assert error.failure.stopped is not None


def test_a_second_ctrl_c_leaves_the_logs_and_takes_down_all_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path, watch=dies)
    error = bench.fails(say=interrupting("collect", bench.heard))
    assert error.exit_code == 5
    assert bench.modules == ["launch", "watch", "stop"]
    assert error.failure.stopped is not None
    assert bench.heard.texts("collect", "note") == ["interrupted again: the logs stay on the hosts"]


def test_an_error_of_ours_while_looking_for_the_cause_does_not_leave_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_folder: Path) -> None:
        raise IndexError("a bug")

    monkeypatch.setattr(module, "diagnose_folder", broken)
    bench = Bench(tmp_path, watch=dies)
    with pytest.raises(IndexError):
        bench.run()
    assert bench.modules[-1] == "stop"


def test_nobody_leads_a_run_elsewhere_by_taking_the_name_of_its_folder(tmp_path: Path) -> None:
    """Whoever owns a folder above, /tmp/outputs say, can do that at any time."""

    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        raise ZeroDivisionError

    bench, victim, moved = Bench(tmp_path / "runs", watch=watch), tmp_path / "victim", tmp_path / "moved"
    victim.mkdir()
    bench.folder.path.rename(moved)
    bench.folder.path.symlink_to(victim)
    bench.folder.write_plan(PLAN)
    error = bench.fails()
    bench.folder.write_json("report.json", failure_json(error.failure))
    assert list(victim.iterdir()) == []
    assert {"error.txt", "logs", "plan.json", "report.json", "scripts"} == {path.name for path in moved.iterdir()}
    assert (moved / "logs/gpu01/logs/vllm_serve_qwen_0.log").is_file()
    assert "/proc/" not in f"{error} {error.failure} {bench.heard.events}"


def test_an_error_of_ours_is_told_as_one_with_its_traceback_on_disk_and_takes_down(tmp_path: Path) -> None:
    def watch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        raise ZeroDivisionError(f"a bug that knows {SECRET.reveal()}")

    bench = Bench(tmp_path, watch=watch)
    error = bench.fails()
    assert error.exit_code == 1
    assert "internal error: ZeroDivisionError" in str(error)
    assert str(bench.folder.path / "error.txt") in str(error)
    written = (bench.folder.path / "error.txt").read_text()
    assert "Traceback" in written
    assert "hf_very_secret" not in written
    assert bench.modules[-1] == "stop"
