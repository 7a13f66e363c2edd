"""What a shell is offered, by the protocol between Click and the shells' scripts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from flagscale_deploy.checks.registry import CHECKS
from flagscale_deploy.cli import cli
from flagscale_deploy.cli.shell import PROGRAM, VARIABLE

HOSTS = "hosts: ['gpu[01:02]', tools01]\ngroups: {rack1: ['gpu[01:02]']}\n"
QWEN = "model_args: {m: {model: /m}}\nexperiment: {runner: {hostfile: hostfile.txt}}\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    (tmp_path / "qwen.yaml").write_text(QWEN)
    (tmp_path / "hostfile.txt").write_text("10.0.0.1 slots=8\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(line: str, shell: str = "bash") -> list[str]:
    """Return the completions of a command line, as the script of that shell asks for them."""
    words = [PROGRAM, *line.split(" ")]
    at = words[-1] if shell == "fish" else str(len(words) - 1)
    asked = {VARIABLE: f"{shell}_complete", "COMP_WORDS": "\n".join(words), "COMP_CWORD": at}
    result = CliRunner().invoke(cli, [], env=asked, prog_name=PROGRAM)
    assert result.exit_code == 0
    assert not result.stderr
    return [line for line in result.stdout.splitlines() if line]


def test_hosts_of_the_project_file(place: Path) -> None:
    (place / "flagscale-deploy.yaml").write_text("inventory: hosts.yaml\n")
    assert offered("stop --limit to") == ["plain,tools01"]
    (place / "flagscale-deploy.yaml").write_text("inventory: [\n")
    assert offered("stop --limit to") == []


def test_commands_and_options() -> None:
    assert offered("st") == ["plain,status", "plain,stop"]
    assert "plain,--skip-check" in offered("run --")


def test_files_and_folders_are_left_to_the_shell() -> None:
    for option in ("-i", "-c", "--junit"):
        assert offered(f"check {option} ho") == ["file,ho"]
    assert offered("run --config-path con") == ["dir,con"]


def test_hosts_and_groups_of_the_inventory() -> None:
    assert offered("status -i hosts.yaml --limit ") == [
        f"plain,{name}" for name in ("all", "ungrouped", "rack1", "gpu01", "gpu02", "tools01")
    ]
    assert offered("status -i hosts.yaml --limit g") == ["plain,gpu01", "plain,gpu02"]
    assert offered("update -i hosts.yaml --without g") == ["plain,gpu01", "plain,gpu02"]
    assert offered("status -i hosts.yaml --limit rack1,!g") == ["plain,rack1,!gpu01", "plain,rack1,!gpu02"]


def test_hosts_that_the_configuration_names() -> None:
    assert offered("run -c qwen.yaml --limit 1") == ["plain,10.0.0.1"]


@pytest.mark.parametrize("line", ["-i nosuch.yaml", "-i qwen.yaml", "-c hosts.yaml", "-c qwen.yaml nosuch"])
def test_where_files_are_wrong_nothing_is_offered_and_nothing_said(line: str) -> None:
    assert offered(f"run {line} --limit x") == []


def test_checks_that_can_be_left_out() -> None:
    names = [check.name for check in CHECKS if check.skippable]
    assert offered("check --skip-check ") == [f"plain,{name}" for name in names]
    assert len(names) < len(CHECKS)
    described = offered("check --skip-check same-", "fish")
    assert [line.partition("\t")[0] for line in described] == [
        f"plain,{name}" for name in names if name.startswith("same-")
    ]
    assert all(line.partition("\t")[2] for line in described)


def test_deployments_that_ran_from_here(place: Path) -> None:
    for folder, name in (("qwen", "qwen"), ("deepseek-r1", "r1"), ("broken", None)):
        for run in ("20260101T000000Z-aaaaaa", "20260201T000000Z-bbbbbb"):
            path = place / "outputs" / folder / "runs" / run
            path.mkdir(parents=True)
            (path / "plan.json").write_text(json.dumps({"deployment": name}) if name else "{")
    assert offered("status --name ") == ["plain,broken", "plain,qwen", "plain,r1"]
    assert offered("status --name q") == ["plain,qwen"]


NAMES = (
    "$(touch pwned)",
    "x;touch${IFS}pwned",
    "`id`",
    "a b",
    "a\nplain,evil",
    "--force",
    "",
    "a'b",
    'a"b',
    "a|b",
    "~",
    "a*",
)


HARMLESS = {"all", "ungrouped", "good", "h1", "h2", "plain", "host", "group", "_"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("name", NAMES)
def test_no_shell_code_is_offered(place: Path, name: str, shell: str) -> None:
    run = place / "outputs" / "good" / "runs" / "1"
    run.mkdir(parents=True)
    (run / "plan.json").write_text(json.dumps({"schema": 1, "deployment": name}))
    (place / "outputs" / (name or "-")).mkdir()
    (place / "outputs" / (name or "-") / "runs").mkdir()
    groups: dict[str, object] = {name: {"hosts": {"h1": {}}}, "good": {"hosts": {name: {}, "h2": {}}}}
    (place / "ansible.yaml").write_text(json.dumps({"all": {"children": groups}}))
    names = [*offered("status --name ", shell), *offered("status -i ansible.yaml --limit ", shell)]
    assert {line.partition("\t")[0].removeprefix("plain,") for line in names} <= HARMLESS
    assert not (place / "pwned").exists()


def test_of_a_plan_only_its_beginning_is_read(place: Path) -> None:
    for name, deployment in (("a", "large"), ("b", "late"), ("c", "linked"), ("d", "pipe")):
        run = place / "outputs" / name / "runs" / "1"
        run.mkdir(parents=True)
        plan = run / "plan.json"
        if deployment == "large":
            with plan.open("w") as file:
                file.write('{"schema": 1, "deployment": "large", "hosts": [')
                file.truncate(1 << 40)
        elif deployment == "late":
            plan.write_text(json.dumps({"x": "x" * (1 << 20), "deployment": "late"}))
        elif deployment == "linked":
            plan.symlink_to(place / "outputs" / "a" / "runs" / "1" / "plan.json")
        else:
            os.mkfifo(plan)
    assert offered("status --name ") == ["plain,b", "plain,c", "plain,d", "plain,large"]


def test_without_runs_no_deployment() -> None:
    assert offered("status --name ") == []


def test_zsh_is_told_a_value_and_what_it_is() -> None:
    assert offered("status -i hosts.yaml --limit too", "zsh") == ["plain", "tools01", "host"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    script = CliRunner().invoke(cli, ["completion", shell], prog_name=PROGRAM).stdout
    assert f"{VARIABLE}={shell}_complete" in script
    assert f"complete -o nosort -F _flagscale_deploy_completion {PROGRAM}" in script or shell != "bash"
