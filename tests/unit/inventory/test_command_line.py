"""Command lines that a user is told to paste: they name the hosts that the command before them was about."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from flagscale_deploy import api
from flagscale_deploy.api.request import Options, load_request
from flagscale_deploy.cli import cli
from flagscale_deploy.deploy.status import Status
from flagscale_deploy.inventory.command_line import again, push
from flagscale_deploy.inventory.load import local_inventory
from tests.unit.plan.given import inventory

HOSTS = "hosts: [{name: gpu01, address: 10.0.0.1, gpus: 8}]\n"
SERVE = "model_args: {q: {model-tag: /m, port: 4567}}\ndeploy: {command-line-mode: true, models: {q: {num_gpus: 1}}}\n"
RUNNER = SERVE + "experiment: {exp_name: q, runner: {hostfile: hosts.txt%s}}\n"


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my hosts.yaml").write_text(HOSTS)
    (tmp_path / "hosts.txt").write_text("10.0.0.1 slots=8\n")
    (tmp_path / "qwen.yaml").write_text(SERVE)
    (tmp_path / "named.yaml").write_text(RUNNER % "")
    (tmp_path / "port.yaml").write_text(RUNNER % ", ssh_port: 2222")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options("my hosts.yaml", name="q"), ["-i", "my hosts.yaml"]),
        (Options("my hosts.yaml", "qwen.yaml"), ["-i", "my hosts.yaml"]),
        (Options("my hosts.yaml", name="q", limit="gpu01"), ["-i", "my hosts.yaml", "--limit", "gpu01"]),
        (Options(None, "named.yaml", limit="10.0.0.*"), ["-c", "named.yaml", "--limit", "10.0.0.*"]),
        (Options("my hosts.yaml", "port.yaml"), ["-i", "my hosts.yaml", "-c", "port.yaml"]),
        (Options(None, "named.yaml"), ["-c", "named.yaml"]),
        (Options(None, "qwen.yaml", ("experiment.runner.hostfile=hosts.txt", "deploy.timeouts.ready=9")),
         ["-c", "qwen.yaml", "experiment.runner.hostfile=hosts.txt"]),
        (Options(name="q"), ["-i", "localhost"]),
    ],
)  # fmt: skip
def test_the_hosts_of_a_command_are_named_to_the_next_one(options: Options, words: list[str]) -> None:
    hosts = load_request(options).inventory
    words_again = shlex.split(again(hosts, "stop", "other"))
    assert words_again == ["flagscale-deploy", "stop", *words, "--name", "other"]
    overrides = tuple(word for word in words if "=" in word)
    chosen = dict(zip(words_again[2::2], words_again[3::2], strict=False))
    chosen_again = Options(chosen.get("-i"), chosen.get("-c"), overrides, "other", chosen.get("--limit"))
    assert load_request(chosen_again).inventory.hosts == hosts.hosts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options("my hosts.yaml", name="q"), "-i 'my hosts.yaml' --name q"),
        (Options("my hosts.yaml", "qwen.yaml", ("deploy.port=9", "deploy.timeouts.ready=9")),
         "-i 'my hosts.yaml' --name qwen -c qwen.yaml deploy.port=9 deploy.timeouts.ready=9"),
        (Options("my hosts.yaml", "port.yaml", ("deploy.port=9",)),
         "-i 'my hosts.yaml' -c port.yaml --name q deploy.port=9"),
        (Options(None, "named.yaml", ("experiment.runner.nnodes=1", "deploy.port=9")),
         "-c named.yaml experiment.runner.nnodes=1 --name q deploy.port=9"),
        (Options("my hosts.yaml", "recipe:example/Dense-8B", recipes="my recipes"),
         "-i 'my hosts.yaml' --name Dense-8B -c recipe:example/Dense-8B --recipes 'my recipes'"),
    ],
)  # fmt: skip
def test_a_command_with_the_same_configuration_is_named(options: Options, words: str) -> None:
    assert load_request(options).again("update") == f"flagscale-deploy update {words}"


def test_hosts_that_are_left_out_are_named_to_the_next_command_and_asked() -> None:
    request = load_request(Options("gpu01,gpu02,gpu03", name="q", without="gpu03"))
    assert (request.inventory.names, [host.name for host in request.others]) == (("gpu01", "gpu02"), ["gpu03"])
    assert again(request.inventory, "stop", "q") == "flagscale-deploy stop -i gpu01,gpu02,gpu03 --name q"
    limited = load_request(Options("gpu01,gpu02,gpu03", name="q", limit="gpu01,gpu02", without="gpu02"))
    assert (limited.inventory.names, [host.name for host in limited.others]) == (("gpu01",), ["gpu02", "gpu03"])


def test_a_push_is_offered_where_it_can_be_told() -> None:
    by_inventory = load_request(Options("my hosts.yaml", "qwen.yaml", limit="gpu0*")).inventory
    line = push(by_inventory, "gpu01:/models/q", "/models/q", "gpu02")
    assert line == "flagscale-deploy push gpu01:/models/q /models/q -i 'my hosts.yaml' --limit gpu02"
    assert push(by_inventory, "gpu01:models/q", "models/q", "gpu02") == ""
    assert push(by_inventory, "gpu01:/m", "/m", "gpu02:1") == ""
    for options in (Options(None, "named.yaml"), Options("my hosts.yaml", "port.yaml")):
        assert push(load_request(options).inventory, "10.0.0.1:/m", "/m", "10.0.0.2") == ""


def test_an_inventory_that_was_made_elsewhere_is_named_by_its_source() -> None:
    assert again(inventory("gpu01"), "cleanup", "q").startswith("flagscale-deploy cleanup -i ")
    assert again(local_inventory(), "stop", "q") == "flagscale-deploy stop -i localhost --name q"


@pytest.mark.parametrize(
    ("words", "noted"),
    [([], True), (["-i", "my hosts.yaml"], False), (["-c", "qwen.yaml"], True), (["-c", "named.yaml"], False)],
)
def test_a_command_that_looks_at_this_machine_only_says_so(
    monkeypatch: pytest.MonkeyPatch, words: list[str], noted: bool
) -> None:
    empty = Status("q", "absent", None, None, None, None, None, None, (), ())
    monkeypatch.setattr(api, "status", lambda *_words, **_settings: empty)
    result = CliRunner().invoke(cli, ["status", "--name", "q", *words])
    assert result.exit_code == 0
    assert ("without -i, this is about this machine alone" in result.stderr) == noted
