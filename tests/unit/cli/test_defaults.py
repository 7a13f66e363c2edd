"""Options that the command line leaves out: from the environment, else from `flagscale-deploy.yaml`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flagscale_deploy.api import request
from flagscale_deploy.api.request import Options
from flagscale_deploy.cli import cli
from flagscale_deploy.cli.defaults import find_defaults
from flagscale_deploy.cli.project_file import ProjectFile, read_project_file
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.base import Connection
from tests.other_user import as_nobody, needs_root

HOSTS = "hosts: [gpu01, gpu02]\ndefaults: {gpus: 8}\ngroups: {rack1: [gpu01]}\n"
QWEN = "model_args: {q: {model-tag: /m, port: 4567}}\ndeploy: {models: {q: {num_gpus: 0}}, ray: off}\n"
ACTS = {
    "run": ["-c", "qwen.yaml"], "update": ["-c", "qwen.yaml"], "rollback": ["--name", "q"],
    "smoke": ["-c", "qwen.yaml"], "stop": ["--name", "q"], "cleanup": ["--name", "q"],
    "unlock": ["--name", "q"], "push": ["hosts.yaml", "/tmp/x"], "exec": ["true"],
}  # fmt: skip
READS = {
    "plan": ["-c", "qwen.yaml", "--offline"], "check": ["-c", "qwen.yaml"], "status": ["--name", "q"],
    "logs": ["--name", "q"], "call": ["hi", "--name", "q"], "hosts": [], "ps": [], "history": ["--name", "q"],
    "bench": ["--name", "q"],
}  # fmt: skip


class Contacted(Exception):
    """A command went as far as to connect to a host."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change to a directory with files of hosts and of models; no host can be contacted."""

    def refuse(host: Host, timeout: float) -> Connection:
        contacted.append(host.name)
        raise Contacted(host.name, timeout)

    contacted: list[str] = []
    (below := tmp_path / "below").mkdir()
    for name in ("hosts.yaml", "other.yaml", "below/hosts.yaml"):
        (tmp_path / name).write_text(HOSTS if name == "hosts.yaml" else HOSTS.replace("gpu0", "cpu0"))
    (tmp_path / "qwen.yaml").write_text(QWEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(request, "Options", partial(Options, connect=refuse))
    yield below
    assert contacted == []


def write(text: str, path: str = "flagscale-deploy.yaml") -> None:
    Path(path).write_text(text)


def go(*words: str, **environ: str) -> Result:
    return CliRunner().invoke(cli, words, env={f"FLAGSCALE_DEPLOY_{name}": value for name, value in environ.items()})


def names(*words: str, **environ: str) -> list[str]:
    result = go("hosts", "--json", *words, **environ)
    assert result.exit_code == 0, result.output
    return [host["name"] for host in json.loads(result.stdout)["hosts"]]


def test_every_command_about_hosts_acts_or_reads() -> None:
    assert {*ACTS, *READS} == {*cli.commands} - {"completion", "schema"}


@pytest.mark.parametrize("command", ACTS)
def test_a_command_that_changes_hosts_does_not_fall_to_this_machine(command: str) -> None:
    result = go(command, *ACTS[command])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "✗ -i/--inventory: no hosts are named, and this command changes hosts",
        "    → give -i FILE, or -i localhost for this machine alone",
    ]


@pytest.mark.parametrize("command", ["plan", "hosts"])
def test_a_command_that_reads_falls_to_this_machine_and_says_so(command: str) -> None:
    result = go(command, *READS[command])
    assert "without -i, this is about this machine alone" in result.stderr
    assert "this machine alone" not in go(command, *READS[command], "-i", "localhost").stderr
    assert "this machine alone" not in go(command, *READS[command], "-q").stderr


def test_localhost_is_this_machine_as_the_runner_describes_it() -> None:
    write(QWEN + "experiment: {runner: {nproc_per_node: 3, device_type: npu, hostfile: hosts.txt}}\n", "npu.yaml")
    (host,) = request.load_request(Options("localhost", "npu.yaml")).inventory.hosts
    assert (host.name, host.connection, host.gpus, host.type) == ("localhost", "local", 3, "npu")
    write(QWEN + "experiment: {runner: {device_type: gpu}}\n", "gpu.yaml")
    assert request.load_request(Options("localhost", "gpu.yaml")).inventory.hosts[0].gpus is None


@pytest.mark.parametrize(
    ("words", "environ", "file", "shown"),
    [
        ([], {}, "inventory: hosts.yaml", ["gpu01", "gpu02"]),
        ([], {"INVENTORY": "other.yaml"}, "inventory: hosts.yaml", ["cpu01", "cpu02"]),
        (["-i", "x,y"], {"INVENTORY": "other.yaml"}, "inventory: hosts.yaml", ["x", "y"]),
        ([], {}, "inventory: hosts.yaml\nlimit: rack1", ["gpu01"]),
        (["--limit", "gpu02"], {}, "inventory: hosts.yaml\nlimit: rack1", ["gpu02"]),
        ([], {"INVENTORY": "other.yaml"}, "inventory: hosts.yaml\nlimit: rack1", ["cpu01", "cpu02"]),
        (["-i", "other.yaml"], {}, "limit: rack1", ["cpu01", "cpu02"]),
        ([], {}, "inventory: 'a,b'", ["a", "b"]),
        ([], {}, "inventory: localhost", ["localhost"]),
        ([], {"INVENTORY": "localhost"}, "inventory: hosts.yaml", ["localhost"]),
        ([], {}, "# nothing", ["localhost"]),
    ],
)
def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    words: list[str], environ: dict[str, str], file: str, shown: list[str]
) -> None:
    write(file)
    assert names(*words, **environ) == shown


def test_the_project_file_wins_over_the_serve_yaml_and_ansible_cfg() -> None:
    write("[defaults]\ninventory = other.yaml\n", "ansible.cfg")
    write("9.9.9.9 slots=1\n", "hosts.txt")
    write(QWEN + "experiment: {runner: {hostfile: hosts.txt}}\n", "qwen.yaml")
    write("inventory: hosts.yaml\nconfig: qwen.yaml\n")
    shown = go("plan", "--offline", "--json")
    assert json.loads(shown.stdout)["instances"][0]["driver"] in ("gpu01", "gpu02")
    write("config: qwen.yaml\n")
    assert json.loads(go("plan", "--offline", "--json").stdout)["instances"][0]["driver"] == "9.9.9.9"
    write("limit: all\n")
    assert names() == ["cpu01", "cpu02"]


def test_the_nearest_file_counts_and_its_paths_start_at_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("inventory: hosts.yaml\nconfig: qwen.yaml\nforks: 7\n")
    (place / "deeper").mkdir()
    monkeypatch.chdir(place / "deeper")
    assert names() == ["gpu01", "gpu02"]
    shown = go("hosts")
    assert shown.stderr == "defaults of ../../flagscale-deploy.yaml: inventory ../../hosts.yaml, forks 7\n"
    assert "2 hosts of ../../hosts.yaml" in shown.stdout
    assert go("hosts", "-q").stderr == ""
    assert json.loads(go("plan", "--offline", "--json").stdout)["deployment"] == "qwen"
    write("inventory: hosts.yaml\n", "../flagscale-deploy.yaml")
    assert names() == ["cpu01", "cpu02"]
    write("inventory: ~/hosts.yaml\n")
    monkeypatch.setenv("HOME", str(place.parent))
    assert names() == ["gpu01", "gpu02"]
    os.chdir("..")
    (place / "deeper/flagscale-deploy.yaml").unlink()
    (place / "deeper").rmdir()


def test_forks_of_the_file_count_unless_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    forks: list[int] = []

    def noted(**words: Any) -> Options:
        forks.append(words["forks"])
        return Options(**words)

    monkeypatch.setattr(request, "Options", noted)
    for file, words in (("forks: 3", []), ("forks: 3", ["--forks", "64"]), ("", [])):
        write(file)
        go("hosts", "-i", "hosts.yaml", *words)
    assert forks == [3, 64, 64]


def test_a_configuration_of_the_file_or_of_the_environment() -> None:
    write("config: qwen.yaml\ninventory: hosts.yaml\n")
    write(QWEN, "llama.yaml")
    for words, environ, name in (
        ([], {}, "qwen"), ([], {"CONFIG": "llama.yaml"}, "llama"), (["-c", "llama.yaml"], {}, "llama"),
        (["--config-name", "llama"], {"CONFIG": "qwen.yaml"}, "llama"), (["--name", "mine"], {}, "mine"),
    ):  # fmt: skip
        shown = go("plan", "--offline", "--json", *words, **environ)
        assert json.loads(shown.stdout)["deployment"] == name, shown.output


def test_a_recipe_is_no_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("config: recipe:Qwen/Qwen3-32B\n")
    for folder in (place.parent, place):
        monkeypatch.chdir(folder)
        assert find_defaults({"config": None}, {})[0] == {"config": "recipe:Qwen/Qwen3-32B"}


def test_a_name_and_an_inventory_need_no_configuration() -> None:
    write("config: broken.yaml\ninventory: hosts.yaml\n")
    write("a: b: c", "broken.yaml")
    given = {"inventory": None, "config": None, "name": "q"}
    assert find_defaults(given, {})[0] == {"inventory": "hosts.yaml", "unnamed": True}
    planned = {"inventory": "hosts.yaml", "config": "broken.yaml", "unnamed": True}
    assert find_defaults(given, {}, plans=True, contacts=False)[0] == planned
    assert find_defaults(given, {}, plans=True)[0] == {**planned, "unnamed_config": True}
    for words in (["stop"], ["run", "--name", "q"], ["stop", "--name", "q", "deploy.port=1"]):
        assert "broken.yaml:1:" in go(*words).stderr


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("inventry: hosts.yaml", "flagscale-deploy.yaml:1:1: inventry: unknown key\n    → did you mean inventory?"),
        ("forks: 8\nlimit: 7", "flagscale-deploy.yaml:2:8: limit: found 7, expected a host pattern as text\n"
         "    → put it in quotes"),
        ("forks: many", "flagscale-deploy.yaml:1:8: forks: found 'many', expected a whole number from 1 to 10,000\n"
         "    → forks: 64"),
        ("forks: 0", "flagscale-deploy.yaml:1:8: forks: found 0, expected"),
        ("forks: true", "flagscale-deploy.yaml:1:8: forks: found True, expected"),
        ("inventory:", "flagscale-deploy.yaml:1:11: inventory: found nothing, expected the path of an inventory"),
        ("config: ''", "flagscale-deploy.yaml:1:9: config: found '', expected the path of a serve YAML"),
        ("config: [a, b]", "flagscale-deploy.yaml:1:9: config: found ['a', 'b'], expected the path of a serve YAML"),
        ("- inventory", "flagscale-deploy.yaml:1:1: found ['inventory'], expected a mapping\n    → keys: inventory,"),
        ("inventory: a: b", "flagscale-deploy.yaml:1:13: this is not YAML"),
        ("limit: a\nlimit: b", "flagscale-deploy.yaml:2:1: found the key 'limit' twice"),
        ("1: a", "flagscale-deploy.yaml:1:1: 1: unknown key"),
        ("? [a]\n: b", "flagscale-deploy.yaml:1:3: "),
        ("inventory: none.yaml", "flagscale-deploy.yaml:1:12: inventory: there is no file none.yaml\n"),
    ],
)  # fmt: skip
def test_faults_of_the_file_name_line_column_and_remedy(text: str, error: str) -> None:
    write(text)
    result = go("hosts")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"✗ {error}" in result.stderr


def test_all_faults_of_the_file_are_reported_together() -> None:
    write("inventory: 1\nhosts: x\nforks: none\n")
    assert go("hosts").stderr.count("✗ flagscale-deploy.yaml:") == 3


def test_a_variable_that_is_empty_or_names_no_file_is_refused_where_it_counts() -> None:
    for value, problem in (("", "it is empty"), ("none.yaml", "there is no file none.yaml")):
        result = go("hosts", INVENTORY=value)
        assert (result.exit_code, f"FLAGSCALE_DEPLOY_INVENTORY: {problem}" in result.stderr) == (2, True)
        assert names("-i", "a,b", INVENTORY=value) == ["a", "b"]
        assert names("-i", "a,b", CONFIG=value) == ["a", "b"], "this command takes no configuration"
    assert "FLAGSCALE_DEPLOY_CONFIG: it is empty" in go("plan", "--offline", CONFIG="").stderr


def test_a_file_that_others_may_write_is_left_alone_and_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("inventory: hosts.yaml\n")
    for path, mode, reason in (
        (place.parent, 0o1777, "everybody may write to its directory"),
        (Path("flagscale-deploy.yaml"), 0o666, "everybody may write to it"),
    ):
        before = path.stat().st_mode
        path.chmod(mode)
        assert names() == ["localhost"]
        assert f"flagscale-deploy.yaml is not read: {reason}\n" in go("hosts").stderr
        result = go("exec", "true")
        assert (result.exit_code, reason in result.stderr) == (2, True)
        path.chmod(before)
    assert names() == ["gpu01", "gpu02"]
    place.parent.chmod(0o1777)
    monkeypatch.chdir(place)
    assert names() == ["localhost"], "neither is one above"


@needs_root
def test_a_file_of_another_user_is_left_alone_and_said(place: Path) -> None:
    write("inventory: hosts.yaml\n", "real.yaml")
    Path("flagscale-deploy.yaml").symlink_to("real.yaml")
    assert names() == ["gpu01", "gpu02"]
    for path in ("real.yaml", "flagscale-deploy.yaml"):
        os.chown(path, 1234, 1234, follow_symlinks=False)
        assert names() == ["localhost"]
        assert "flagscale-deploy.yaml is not read: it belongs to another user\n" in go("hosts").stderr
        os.chown(path, 0, 0, follow_symlinks=False)
    for folder in place.parents[:3]:
        folder.chmod(0o755)
    assert as_nobody(names) == ["gpu01", "gpu02"], "root's is read"


def test_a_directory_that_is_gone_has_no_project_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gone := place / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert read_project_file() == ProjectFile()


def test_what_a_command_tells_to_paste_names_the_hosts_of_the_defaults() -> None:
    write("inventory: hosts.yaml\nlimit: rack1\n")
    loaded = request.load_request(Options("hosts.yaml", name="q", limit="rack1")).inventory
    assert loaded.options == ("-i", "hosts.yaml", "--limit", "rack1")
    assert names(*loaded.options) == names() == ["gpu01"]
