"""The commands `update` and `rollback`: words in, one call of the library, and what is shown of its result."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy import api
from flagscale_deploy.api import ChangeFailedError, ChangeOptions, ChangeResult, PlanOptions
from flagscale_deploy.api.request import Request
from flagscale_deploy.deploy.bring_up import Failure
from flagscale_deploy.deploy.server_status import InstanceStatus
from flagscale_deploy.deploy.status import Status
from flagscale_deploy.errors import NotReadyError
from flagscale_deploy.plan.server_change import Difference, ServerChange
from tests.unit.cli.fleet import Typing

DIFFERENCE = Difference(
    "r1",
    (
        ServerChange("qwen/0", "restarted", ("--max-model-len 4096 → 8192", "secret HF_TOKEN added"), ("gpu01",)),
        ServerChange("qwen/1", "moved", ("gpu02 [0] → gpu01 [1]",), ("gpu01",)),
        ServerChange("qwen/2", "added", (), ("gpu01",)),
        ServerChange("llama/0", "unchanged", (), ("gpu01",)),
    ),
)
SERVER = InstanceStatus("qwen/0", "qwen", 0, "ready", "gpu01", ("gpu01",), {}, "http://10.0.0.1:4567/v1", "qwen")
STATUS = Status("qwen", "ready", "r1", None, "gpu01", "me@here", 1.0, None, (), (SERVER,))
CHANGED = ChangeResult("c1", DIFFERENCE, STATUS, 83.0, ("gpu02: its part could not be stopped: no answer",))
UNCHANGED = ChangeResult("", Difference("r1", (ServerChange("qwen/0", "unchanged"),)))


RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


class Called:
    """A function of the library that keeps what it was called with, and returns or raises this outcome."""

    def __init__(self, outcome: ChangeResult | Exception) -> None:
        self.outcome = outcome
        self.request: Request | None = None
        self.settings: dict[str, Any] = {}

    def __call__(self, request: Request, **settings: Any) -> ChangeResult:
        self.request, self.settings = request, settings
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    @property
    def how(self) -> ChangeOptions:
        how = self.settings["how"]
        assert isinstance(how, ChangeOptions)
        return how


@pytest.fixture
def typing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typing:
    return Typing(tmp_path, monkeypatch)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Called:
    called = Called(CHANGED)
    for name in ("update", "resume", "rollback"):
        monkeypatch.setattr(api, name, called)
    return called


def test_update_without_options_changes_one_group_at_a_time_and_watches_it(typing: Typing, called: Called) -> None:
    assert typing("update -c qwen.yaml deploy.port=9000").exit_code == 0
    assert called.how == ChangeOptions(1, 0, 10.0, allow_downtime=False, keep_on_failure=False)
    assert (called.settings["options"], called.settings["lock_wait"]) == (PlanOptions(), 3.0)
    assert called.request is not None
    assert called.request.options.overrides == ("deploy.port=9000",)
    assert called.request.options.acts


def test_options_of_a_change_arrive(typing: Typing, called: Called) -> None:
    words = "--max-unavailable 2 --surge 3 --watch-for 1m --allow-downtime --keep-on-failure --without gpu02"
    for line in (
        f"update -c qwen.yaml {words}",
        f"update --name qwen --resume {words}",
        f"rollback --name qwen {words}",
    ):
        assert typing(f"{line} --force --skip-check disk --lock-timeout 9").exit_code == 0
        assert called.how == ChangeOptions(2, 3, 60.0, allow_downtime=True, keep_on_failure=True)
        assert called.settings["options"] == PlanOptions(None, True, ("disk",))
        assert called.settings["lock_wait"] == 9
        assert called.request is not None
        assert called.request.inventory.names == ("gpu01",)
        assert [host.name for host in called.request.others] == ["gpu02"]


@pytest.mark.parametrize("pattern", ["gpu01", "all", "gpu09"])
def test_the_head_and_unknown_hosts_are_not_taken_out(typing: Typing, called: Called, pattern: str) -> None:
    refused = typing(f"update -c qwen.yaml --without {pattern}")
    assert (refused.exit_code, called.request) == (2, None)
    assert refused.stderr.startswith(f"✗ --without: '{pattern}' ")


def test_what_was_changed_is_shown(typing: Typing, called: Called) -> None:
    shown = typing("update -c qwen.yaml")
    assert shown.stdout.splitlines() == [
        "qwen is changed, after 1m23s (c1):",
        "    qwen/0: --max-model-len 4096 → 8192, secret HF_TOKEN added",
        "    qwen/1: gpu02 [0] → gpu01 [1]",
        "    qwen/2: added",
        "    1 server went on as it was",
        "endpoint http://10.0.0.1:4567/v1",
    ]
    assert "! gpu02: its part could not be stopped: no answer" in shown.stderr
    assert "! gpu02: its part" in typing("update -c qwen.yaml -q").stderr
    called.outcome = UNCHANGED
    same = typing("rollback --name qwen")
    assert same.stdout == "Nothing to change: it runs with this very configuration (run r1).\n"


def test_a_change_as_json(typing: Typing, called: Called) -> None:
    content = json.loads(typing("update -c qwen.yaml --json").stdout)
    assert content == {
        "schema": 1,
        "verdict": "changed",
        "change_id": "c1",
        "difference": json.loads(json.dumps(DIFFERENCE.json())),
        "endpoints": [{"endpoint": "http://10.0.0.1:4567/v1", "model": "qwen"}],
        "elapsed": 83.0,
        "notes": ["gpu02: its part could not be stopped: no answer"],
    }
    called.outcome = UNCHANGED
    content = json.loads(typing("rollback --name qwen --json").stdout)
    assert (content["verdict"], content["change_id"], content["endpoints"]) == ("nothing to change", None, [])


@pytest.mark.parametrize("put_back", [True, False])
def test_a_change_that_fails_is_exit_status_5_with_the_cause(typing: Typing, called: Called, put_back: bool) -> None:
    cause = NotReadyError("gpu01: qwen/0 ended: out of memory", "    → lower max-model-len")
    called.outcome = ChangeFailedError(Failure(cause), "c1", put_back=put_back)
    failed = typing("update -c qwen.yaml --json")
    assert failed.exit_code == 5
    lines = failed.stderr.splitlines()
    assert lines[:2] == ["✗ gpu01: qwen/0 ended: out of memory", "    → lower max-model-len"]
    assert lines[2:] == (
        ["what was changed is put back"]
        if put_back
        else ["the change is not over", "    → finish it with `update --resume`, or `rollback`"]
    )
    content = json.loads(failed.stdout)
    assert (content["exit_code"], content["change_id"], content["put_back"]) == (5, "c1", put_back)


def test_a_dry_run_prints_what_plan_prints(typing: Typing, called: Called) -> None:
    assert typing("run -c qwen.yaml").exit_code == 0
    words = "-c qwen.yaml model_args.qwen.max-model-len=8192 model_args.qwen.nosuch-flag=1"
    planned, dry = typing(f"plan {words}"), typing(f"update --dry-run {words}")
    assert (dry.exit_code, planned.exit_code) == (0, 0), dry.output
    assert RUN_ID.sub("ID", dry.stdout) == RUN_ID.sub("ID", planned.stdout)
    assert "qwen/0 would restart: + --max-model-len 8192" in dry.stdout
    assert "vLLM 0.32 has no flag --nosuch-flag" in dry.stderr
    as_json = json.loads(typing(f"update --dry-run {words} --json").stdout)
    assert (as_json["deployment"], as_json["difference"]["servers"][0]["kind"]) == ("qwen", "restarted")
    assert called.request is None


def test_a_dry_run_fails_as_plan_does(typing: Typing) -> None:
    for command in ("plan", "update --dry-run"):
        assert typing(f"{command} -c qwen.yaml model_args.qwen.tensor-parallel-size=64").exit_code == 4


def test_resume_needs_no_configuration_and_reads_no_default_one(
    typing: Typing, called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    (typing.folder / "broken.yaml").write_text("model_args: [")
    monkeypatch.setenv("FLAGSCALE_DEPLOY_CONFIG", "broken.yaml")
    for line in ("update --resume --name qwen", "rollback --name qwen"):
        called.request = None
        assert typing(line).exit_code == 0
        assert called.request is not None
        assert called.request.spec is None
    assert typing("update --name qwen").exit_code == 2
    monkeypatch.delenv("FLAGSCALE_DEPLOY_CONFIG")
    assert "-c/--config" in typing("update --name qwen").stderr
    both = typing("update --resume --dry-run --name qwen")
    assert (both.exit_code, "--dry-run: does not go with --resume" in both.stderr) == (2, True)


def test_rollback_takes_a_run_and_overrides(typing: Typing, called: Called) -> None:
    for words, run in (("", None), (" 20261201T", "20261201T"), (" 3", "3")):
        assert typing(f"rollback --name qwen{words}").exit_code == 0
        assert called.settings["to"] == run
    assert typing("rollback -c qwen.yaml deploy.port=9000 3").exit_code == 0
    assert called.request is not None
    assert (called.settings["to"], called.request.options.overrides) == ("3", ("deploy.port=9000",))
    two = typing("rollback --name qwen 3 4")
    assert (two.exit_code, "more than one run is named" in two.stderr) == (2, True)


@pytest.mark.parametrize("action", ["stop", "query", "dryrun"])
def test_an_action_that_is_another_command_changes_nothing(typing: Typing, called: Called, action: str) -> None:
    refused = typing(f"update -c qwen.yaml action={action}")
    assert (refused.exit_code, called.request) == (2, None)
    assert "is a command of its own" in refused.stderr
