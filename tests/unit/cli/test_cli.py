"""The command line: words in, exit statuses and text out. No host is contacted here."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from flagscale_deploy import __version__, api
from flagscale_deploy.api.request import Request
from flagscale_deploy.checks.types import Verdict
from flagscale_deploy.cli import cli
from flagscale_deploy.deploy.bring_up import Failure
from flagscale_deploy.deploy.status import Status
from flagscale_deploy.errors import (
    BusyError,
    CheckError,
    DeployError,
    Fault,
    HostKeyError,
    HostsUnreachableError,
    InterruptedByUser,
    LockedError,
    NotReadyError,
    RemoteError,
    UnreachableError,
)
from flagscale_deploy.facts.model import Facts, Observation
from flagscale_deploy.logs import LineSelection
from tests.unit.sources import ROOT

HOSTS = "hosts:\n- {name: gpu01, address: 10.0.0.1, gpus: 8}\n- {name: gpu02, address: 10.0.0.2, gpus: 8}\n"
QWEN = """\
model_args:
  vllm_model: {model-tag: /models/Qwen, tensor-parallel-size: 16, port: 4567, action-args: [trust-remote-code]}
deploy:
  command-line-mode: true
  models: {vllm_model: {num_gpus: 16}}
"""
COMMANDS = sorted(cli.commands)
ABOUT_HOSTS = [command for command in COMMANDS if command not in ("completion", "schema")]
ABOUT_A_DEPLOYMENT = [command for command in ABOUT_HOSTS if command not in ("check", "exec", "hosts", "ps", "push")]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a directory with an inventory and a configuration."""
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    (tmp_path / "qwen.yaml").write_text(QWEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def go(*words: str) -> Result:
    result = CliRunner().invoke(cli, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_explains_itself(command: str, flag: str) -> None:
    result = go(command, flag)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: cli {command} ")
    assert (cli.commands[command].help or "").splitlines()[0].split(":")[0] in " ".join(result.stdout.split())


def test_the_commands_are_those_of_the_design() -> None:
    assert (
        sorted(
            [
                "run",
                "update",
                "rollback",
                "plan",
                "check",
                "ps",
                "history",
                "status",
                "logs",
                "call",
                "stop",
                "cleanup",
                "smoke",
                "bench",
                "unlock",
                "push",
                "exec",
                "hosts",
                "completion",
                "schema",
            ]
        )
        == COMMANDS
    )
    assert go("--help").exit_code == 0
    assert go("--version").stdout == f"flagscale-deploy, version {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_explained(command: str) -> None:
    options = [parameter for parameter in cli.commands[command].params if isinstance(parameter, click.Option)]
    names = {name for option in options for name in option.opts}
    if command in ABOUT_HOSTS:
        assert {"--inventory", "--limit", "--forks", "--quiet", "--verbose", "--no-color", "--json"} <= names
    assert [option.opts[-1] for option in options if not option.help] == []


@pytest.mark.parametrize("words", [["nosuch"], ["plan", "--nosuch"], ["hosts", "--forks", "0"], ["exec"], ["call"]])
def test_wrong_words_are_bad_input(words: list[str]) -> None:
    result = go(*words)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (["-i", "nosuch.yaml", "-c", "qwen.yaml"], ["nosuch.yaml"]),
        (["-i", "hosts.yaml", "-c", "nosuch.yaml"], ["nosuch.yaml"]),
        (["-i", "hosts.yaml"], ["-c/--config: no configuration is given"]),
        (["-i", "hosts.yaml", "-c", "bad.yaml"], ["bad.yaml:5:12: deploy.models.vllm_modle", "vllm_model"]),
        (["-i", "hosts.yaml", "-c", "broken.yaml"], ["broken.yaml:3:1"]),
        (["-i", "hosts.yaml", "-c", "qwen.yaml", "nosuch.key=1"], ["nosuch"]),
        (["-i", "hosts.yaml", "-c", "qwen.yaml", "no equals sign"], ["no equals sign"]),
        (["-i", "hosts.yaml", "-c", "qwen.yaml", "--limit", "nosuch"], ["nosuch"]),
        (["-i", "nosuch.yaml", "-c", "bad.yaml"], ["nosuch.yaml", "bad.yaml:5:12: deploy.models.vllm_modle"]),
        (["-i", "hosts.yaml", "-c", "qwen.yaml", "model_args.vllm_model.tensor-parallel-size=3"],
         ["qwen.yaml:2:3: model_args.vllm_model", "num_gpus is 16"]),
        (["-i", "hosts.yaml", "-c", "qwen.yaml", "--templates", "nosuch"], ["nosuch: templates: no such directory"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["plan", "run"])
def test_bad_input_is_status_2_with_file_and_key_path(
    place: Path, command: str, words: list[str], problems: list[str]
) -> None:
    (place / "bad.yaml").write_text(QWEN.replace("{vllm_model: {num_gpus", "{vllm_modle: {num_gpus"))
    (place / "broken.yaml").write_text("a: 1\nb: [\n")
    result = go(command, *(["--offline"] if command == "plan" else []), *words)
    assert result.exit_code == 2
    assert not result.stdout
    for message in problems:
        assert message in result.stderr, result.stderr
    assert "internal error" not in result.stderr


@pytest.mark.parametrize(("action", "instead"), [("dryrun", "plan"), ("query", "status"), ("test", "smoke")])
def test_an_action_of_flagscales_that_is_a_command_here_names_it(action: str, instead: str) -> None:
    result = go("run", "-i", "hosts.yaml", "-c", "qwen.yaml", f"action={action}")
    assert result.exit_code == 2
    assert f"use flagscale-deploy {instead} with the same options" in result.stderr


def test_hosts_shows_the_inventory() -> None:
    result = go("hosts", "-i", "hosts.yaml")
    assert result.exit_code == 0
    assert "gpu01 (head)" in result.stdout
    assert "10.0.0.2" in result.stdout
    answer = json.loads(go("hosts", "-i", "hosts.yaml", "--json", "--limit", "gpu02").stdout)
    assert "gpu02" in json.dumps(answer)
    assert "gpu01" not in json.dumps(answer)


def test_plan_offline_as_json_is_the_contract() -> None:
    result = go("plan", "-i", "hosts.yaml", "-c", "qwen.yaml", "--offline", "--json", "-q")
    assert result.exit_code == 0
    assert not result.stderr
    answer = json.loads(result.stdout)
    assert answer["schema"] == 2
    assert answer["deployment"] == "qwen"
    assert answer["instances"][0]["gpus"] == {"gpu01": list(range(8)), "gpu02": list(range(8))}
    assert answer["instances"][0]["argv"][:3] == ["vllm", "serve", "/models/Qwen"]
    assert answer["ray"]["head"] == "gpu01"


def test_overrides_change_the_plan() -> None:
    words = ["plan", "-i", "hosts.yaml", "-c", "qwen.yaml", "--offline", "--json", "--name", "other"]
    answer = json.loads(
        go(*words, "deploy.models.vllm_model.num_gpus=4", "model_args.vllm_model.tensor-parallel-size=4").stdout
    )
    assert answer["deployment"] == "other"
    assert answer["instances"][0]["gpus"] == {"gpu01": [0, 1, 2, 3]}


@pytest.mark.parametrize("dash_i", [True, False])
def test_plan_is_readable(dash_i: bool) -> None:
    result = go("plan", *(["-i", "hosts.yaml"] if dash_i else []), "-c", "qwen.yaml", "--offline", "--scripts")
    if not dash_i:
        assert result.exit_code == 2  # this machine's number of GPUs is not known without looking
        return
    assert result.exit_code == 0
    for expected in ("Ray cluster at 10.0.0.1:6379", "vllm serve /models/Qwen", "ray_head.sh", "#!/usr/bin/env bash"):
        assert expected in result.stdout


def test_plan_writes_the_very_scripts(place: Path) -> None:
    result = go("plan", "-i", "hosts.yaml", "-c", "qwen.yaml", "--offline", "--json", "-o", "out/deep")
    assert result.exit_code == 0
    scripts = {
        host: {name: (place / "out/deep" / host / name).read_text() for name in files}
        for host, files in json.loads(result.stdout)["scripts"].items()
    }
    assert scripts == json.loads(result.stdout)["scripts"]
    script = place / "out/deep/gpu01/ray_head.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    assert "scripts written to out/deep" in result.stderr


@pytest.mark.parametrize("words", [["-o", "qwen.yaml"], ["-o", "qwen.yaml/below"]])
def test_a_place_that_cannot_be_written_is_told_and_no_bug_of_ours(words: list[str]) -> None:
    result = go("plan", "-i", "hosts.yaml", "-c", "qwen.yaml", "--offline", *words)
    assert result.exit_code == 2
    assert "qwen.yaml" in result.stderr
    assert "internal error" not in result.stderr


@pytest.mark.parametrize("words", [["--artifacts", "qwen.yaml"]])
def test_a_smoke_deploy_that_could_keep_nothing_does_not_begin(words: list[str]) -> None:
    result = go("smoke", "-i", "hosts.yaml", "-c", "qwen.yaml", *words)
    assert result.exit_code == 2
    assert "qwen.yaml: artifacts cannot be written there" in result.stderr


@pytest.mark.parametrize("words", [[], ["-v"]])
def test_check_ends_with_what_to_mend_and_shows_what_passed_if_asked(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = (
        Verdict("mtu", "failed", "gpu01", "MTU 1400", remedy="set 1500"),
        Verdict("clock", "warning", "gpu02", "7 s off"),
        Verdict("tcp", "passed", found="2 hosts"),
    )
    seen = {name: Observation(name, Facts()) for name in ("gpu01", "gpu02")}
    monkeypatch.setattr(api, "check", lambda *_, **__: api.CheckReport(seen, verdicts))
    result = go("check", "-i", "hosts.yaml", *words)
    assert result.exit_code == 4
    below = result.stdout.split("HOST   STATE", 1)[1]
    assert re.findall(r"warnings|failed|7 s off|MTU 1400|set 1500|1 problem, 1 warning", below) == [
        "warnings", "7 s off", "failed", "MTU 1400", "set 1500", "1 problem, 1 warning"
    ]  # fmt: skip
    assert ("tcp" in below) == bool(words)


def test_check_says_in_one_line_that_no_host_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {name: Observation(name, error=UnreachableError(name, "no answer")) for name in ("gpu01", "gpu02")}
    verdicts = tuple(Verdict("tcp", "failed", name, "no answer", remedy="is sshd running there?") for name in seen)
    monkeypatch.setattr(api, "check", lambda *_, **__: api.CheckReport(seen, verdicts))
    result = go("check", "-i", "hosts.yaml")
    assert result.exit_code == 3
    line = "no host answered: gpu01: no answer → is sshd running there? (and 1 other host)\n"
    assert result.stdout == line


@pytest.mark.parametrize(
    ("words", "selection"),
    [
        ([], LineSelection(50, ["engine", "script"], this_run=True)),
        (["-f", "--all-runs"], LineSelection(50, ["engine", "script"])),
        (["--grep", "(a+)+$", "--grep", "b"],
         LineSelection(None, ["engine", "script"], this_run=True, grep=("(a+)+$", "b"))),
        (["--grep", "x", "--tail", "7"], LineSelection(7, ["engine", "script"], this_run=True, grep=("x",))),
    ],
)  # fmt: skip
def test_logs_asks_for_lines_of_this_run_that_contain_texts(
    words: list[str], selection: LineSelection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[LineSelection] = []

    def follow(_request: Request, _show: object, lines: LineSelection, **_: object) -> dict[str, int]:
        asked.append(lines)
        return {}

    monkeypatch.setattr(api, "follow", follow)
    assert go("logs", "-i", "hosts.yaml", "--name", "qwen", *words).exit_code == 0
    assert asked == [selection]


@pytest.mark.parametrize(
    "words",
    [["--grep", ""], ["--grep", "x" * 201], ["--grep", "x", "-o", "d"], ["--all-runs", "--diagnose"]],
)
def test_logs_refuses_what_it_cannot_search(words: list[str]) -> None:
    result = go("logs", "-i", "hosts.yaml", "--name", "qwen", *words)
    assert result.exit_code == 2
    assert f"✗ {words[0]}: " in result.stderr


def test_call_streams_whole_words_and_reads_its_text_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def call(_request: Request, messages: object, *, show: Callable[[str], None], **_: object) -> None:
        asked.append(messages)
        for piece in ("my key is hf_Canary", "Canary0123456789 \x1b[2J", "ok"):
            show(piece)

    monkeypatch.setattr(api, "call", call)
    words = ["call", "-i", "hosts.yaml", "--name", "qwen", "--stream", "-"]
    result = CliRunner().invoke(cli, words, input="What is\nRay?\n")
    assert result.stdout == "my key is [REDACTED] \\x1b[2Jok\n"
    assert asked == [[{"role": "user", "content": "What is\nRay?"}]]
    for text, problem in (
        (b"", "is empty"),
        (b"\xff", "is not in UTF-8 at byte 0"),
        (b"x" * (4 << 20) + b"x", "4 MiB"),
    ):
        result = CliRunner().invoke(cli, words, input=text)
        assert (result.exit_code, problem in result.stderr) == (2, True)
    assert go(*words[:-1], "hi", "--json").exit_code == 2


def test_status_watched_shares_its_tokens_between_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def status(_request: Request, *, tokens: object) -> Status:
        seen.append(tokens)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return Status("qwen", "ready", "run-1", None, "gpu01", "bob@ops", 1.0, None, (), ())

    monkeypatch.setattr(api, "status", status)
    result = go("status", "-i", "hosts.yaml", "--name", "qwen", "-w", "--interval", "0.5")
    assert result.exit_code == 130
    assert len(re.findall(r"^── \d\d:\d\d:\d\d\nqwen: ready", result.stdout, re.MULTILINE)) == 2
    assert seen[0] is not None
    assert len(set(map(id, seen))) == 1


def test_a_check_whose_junit_file_can_not_be_written_asks_nobody(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise CheckError([Fault("gpu01", "was asked")])

    monkeypatch.setattr(api, "check", asked)
    result = go("check", "-i", "hosts.yaml", "--junit", "qwen.yaml/out.xml")
    assert result.exit_code == 2
    assert "the JUnit file cannot be written" in result.stderr
    (place / "old.xml").write_text("an earlier command's")
    for name in ("old.xml", "new/out.xml"):
        assert go("check", "-i", "hosts.yaml", "--junit", name).exit_code == 4
        assert not (place / name).exists()


def test_an_error_as_json_too() -> None:
    result = go("plan", "-i", "hosts.yaml", "-c", "nosuch.yaml", "--json")
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["schema"] == 1
    assert answer["exit_code"] == 2
    assert "nosuch.yaml" in answer["error"]


ERRORS: dict[str, tuple[BaseException, int, str]] = {
    "failed on a host": (RemoteError("gpu01", "disk full"), 1, "gpu01: disk full"),
    "unreachable": (
        HostsUnreachableError([UnreachableError("gpu01", "a"), UnreachableError("gpu02", "b")]),
        3,
        "gpu02: b",
    ),
    "not trusted": (HostKeyError("gpu01", "its host key changed"), 3, "its host key changed"),
    "check": (CheckError([Fault("gpu01", "a"), Fault("gpu02", "b")]), 4, "gpu02: b"),
    "busy": (BusyError([Fault("gpu01", "GPU 0 is in use")]), 7, "gpu01: GPU 0 is in use"),
    "never ready": (NotReadyError("it is not ready"), 5, "it is not ready"),
    "change failed": (
        api.ChangeFailedError(Failure(NotReadyError("a")), "c1", put_back=True),
        5,
        "what was changed is put back",
    ),
    "locked": (LockedError("gpu01", "qwen is locked"), 6, "qwen is locked"),
    "interrupted": (InterruptedByUser("interrupted"), 130, "interrupted"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted"),
    "any other of ours": (DeployError("x"), 1, "x"),
    "a bug": (KeyError("a bug"), 1, "internal error: KeyError: 'a bug'"),
}


@pytest.mark.parametrize(("error", "code", "message"), ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.parametrize("command", ["run", "update", "rollback", "status", "stop", "check"])
def test_exit_statuses(
    monkeypatch: pytest.MonkeyPatch, command: str, error: BaseException, code: int, message: str
) -> None:
    def fail(*_words: object, **_settings: object) -> None:
        raise error

    monkeypatch.setattr(api, command, fail)
    result = go(command, "-i", "hosts.yaml", "-c", "qwen.yaml")
    assert result.exit_code == code
    assert message in result.stderr
    assert not result.stdout


def test_verbose_shows_the_traceback_of_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_words: object, **_settings: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(api, "check", fail)
    ended = CliRunner().invoke(cli, ["check", "-i", "hosts.yaml", "-v"])
    assert (ended.exit_code, "run again with -v" in ended.stderr) == (1, False)
    assert "Traceback (most recent call last)" in ended.stderr
    assert "KeyError: 'a bug'" in ended.stderr


def test_a_traceback_shows_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(request: Request, *_options: object, **_settings: object) -> None:
        raise RuntimeError(f"a bug that knows {request.inventory.hosts[0].secret_env['MY_TOKEN'].reveal()}")

    monkeypatch.setattr(api, "check", fail)
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text("hosts: [{name: gpu01, env: {MY_TOKEN: sk-canary}}]")
    for words in ((), ("-v",)):
        ended = CliRunner().invoke(cli, ["check", "-i", str(hosts), *words])
        assert "a bug that knows [REDACTED]" in ended.stderr
        assert "canary" not in ended.output + ended.stderr


@pytest.mark.parametrize("command", [command for command in ABOUT_A_DEPLOYMENT if command != "status"])
def test_a_command_about_a_deployment_asks_which(command: str) -> None:
    words = ["hello"] if command == "call" else []
    result = go(command, *words, "-i", "hosts.yaml", "--limit", "gpu01")
    assert result.exit_code == 2
    assert "--name" in result.stderr or "-c/--config" in result.stderr


def test_sigterm_interrupts_and_what_nohup_ignores_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen = []

    def status(*_words: object, **_settings: object) -> None:
        seen.append(signal.getsignal(signal.SIGHUP))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(api, "status", status)
    result = go("status", "-i", "hosts.yaml", "--name", "qwen")
    assert result.exit_code == 130
    assert seen == [signal.SIG_IGN]


def test_the_command_line_starts_without_what_only_acts_need() -> None:
    """`--help` and completion have to be quick: Paramiko, Rich and pydantic take most of a second."""
    program = "import sys, flagscale_deploy.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "click" in modules
    assert not {"fabric", "paramiko", "rich", "pydantic", "omegaconf", "jinja2", "yaml"} & set(modules)


def test_the_package_runs_as_a_module() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "flagscale_deploy", "--version"], capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"flagscale-deploy, version {__version__}\n"


def test_what_is_written_is_for_the_operator_alone_whatever_the_umask_is(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "deep"
    files = ["-i", "inventories/hostfile.txt", "-c", "examples/qwen2.5-7b.yaml"]
    subprocess.run(
        [sys.executable, "-m", "flagscale_deploy", "plan", "--offline", *files, "-o", folder],
        cwd=ROOT, umask=0, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    written = [tmp_path / "out", folder, *folder.rglob("*")]
    assert len(written) > 3
    assert {str(path): oct(stat.S_IMODE(path.stat().st_mode)) for path in written if path.stat().st_mode & 0o077} == {}


def test_a_junit_file_has_the_mode_of_the_user_s_own_umask(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; os.umask(0o022)\n"
        "from flagscale_deploy.support.file_modes import kept_private, users_umask\n"
        "from flagscale_deploy.output.junit import write_junit\n"
        "with kept_private():\n"
        "    assert users_umask() == 0o022\n"
        "    write_junit('d', [], Path(sys.argv[1]) / 'j.xml', str)\n"
        "    (Path(sys.argv[1]) / 'other').touch()\n"
        "assert (users_umask(), os.umask(0)) == (-1, 0o022)\n"
    )
    folder = tmp_path / "results"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", code, folder], check=True, cwd=ROOT, timeout=60)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"j.xml": 0o644, "other": 0o600}
