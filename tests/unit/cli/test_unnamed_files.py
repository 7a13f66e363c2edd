"""Files that are found and that nobody has named: in a repository of strangers, in another user's directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flagscale_deploy.api.request import Options, load_request
from flagscale_deploy.cli.defaults import find_defaults
from flagscale_deploy.inventory.load import default_inventory, load_inventory
from tests.other_user import needs_root
from tests.unit.cli.test_defaults import ACTS, HOSTS, QWEN, READS, go, names, place, write

__all__ = ["place"]


PROGRAMS = {
    "a short inventory": ("hosts: [{name: gpu01, ssh_options: '-o ProxyCommand=\"touch PWNED\"'}]\n", ""),
    "Ansible's": ("all: {hosts: {gpu01: {ansible_ssh_common_args: -o ProxyCommand='touch PWNED'}}}\n", ""),
    "settings of ssh": ("hosts: [{name: gpu01, ssh_options: -F evil.conf}]\n", ""),
    "Python here": ("hosts: [{name: gpu01, connection: local, python: ./evil}]\n", ""),
    "Ansible's Python here": (
        "all: {hosts: {gpu01: {ansible_connection: local, ansible_python_interpreter: /tmp/evil}}}\n",
        "",
    ),
    "commands here": ("hosts: [{name: gpu01, connection: local, before_start: touch PWNED}]\n", ""),
    "an environment here": ("hosts: [{name: gpu01, connection: local, venv: evil}]\n", ""),
    "variables here": ("hosts: [{name: gpu01, connection: local, env: {LD_PRELOAD: ./evil.so}}]\n", ""),
    "secret variables here": ("hosts: [{name: gpu01, connection: local, env: {EVIL_KEY: x}}]\n", ""),
    "ansible.cfg": ("all: {hosts: {gpu01: {}}}\n", "[ssh_connection]\nssh_args = -oProxyCommand='touch PWNED'\n"),
}


@pytest.mark.parametrize(("hosts", "settings"), PROGRAMS.values(), ids=PROGRAMS.keys())
@pytest.mark.parametrize("found_by", ["the project file", "ansible.cfg"])
def test_no_program_of_an_inventory_that_nobody_named_is_run(hosts: str, settings: str, found_by: str) -> None:
    """A repository of strangers may hold both; `status` in it would run the program."""
    write(hosts, "evil.yaml")
    if found_by == "ansible.cfg":
        settings = f"[defaults]\ninventory = evil.yaml\n{settings}"
    else:
        write("inventory: evil.yaml\n")
    write(settings, "ansible.cfg")
    for command in (*READS, *ACTS):
        words = {**READS, **ACTS}[command]
        refused = go(command, *words)
        assert (refused.exit_code, "nobody has named this file" in refused.stderr) == (2, True), refused.output
    assert names("-i", "evil.yaml") == names(INVENTORY="evil.yaml") == ["gpu01"]
    assert not Path("PWNED").exists()


CONFIGS = {
    "commands": "cmds: {before_start: touch PWNED}",
    "variables": "envs: {LD_PRELOAD: ./evil.so}",
    "variables of a host": "envs: {nodes_envs: {localhost: {LD_PRELOAD: ./evil.so}}}",
}
PROBING = ("plan", "check", "run", "smoke")
"""Commands that plan: they look at hosts with what the configuration sets up there."""


@pytest.mark.parametrize("experiment", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("hosts", ["", "hosts: [{name: localhost, connection: local, gpus: 1}]\n"])
def test_no_command_of_a_configuration_that_nobody_named_is_run_here(experiment: str, hosts: str) -> None:
    """Without hosts, `plan` and `check` are about this machine."""
    write(f"{QWEN}experiment: {{{experiment}}}\n", "evil.yaml")
    write(hosts, "local.yaml")
    write("config: evil.yaml\n" + ("inventory: local.yaml\n" if hosts else ""))
    for command in PROBING if hosts else ("plan", "check"):
        refused = go(command)
        assert (refused.exit_code, "nobody has named this file" in refused.stderr) == (2, True), refused.output
    assert "nobody has named" not in go("plan", "--offline").stderr
    for given, environ in (("evil.yaml", {}), (None, {"FLAGSCALE_DEPLOY_CONFIG": "evil.yaml"})):
        assert "unnamed_config" not in find_defaults({"config": given}, environ, plans=True)[0]
    assert not Path("PWNED").exists()


def test_a_configuration_that_sets_nothing_up_on_hosts_needs_no_name() -> None:
    assert load_request(Options(None, "qwen.yaml", unnamed_config=True)).name == "qwen"


@pytest.mark.parametrize("python", ["python3", "/usr/bin/python3", "/usr/local/bin/python3.12"])
def test_this_machine_with_a_python_of_the_system_needs_no_name(python: str) -> None:
    write(f"hosts: [{{name: gpu01, connection: local, python: {python}, gpus: 1}}]\n", "here.yaml")
    write("inventory: here.yaml\n")
    assert names() == ["gpu01"]


@needs_root
def test_another_user_s_file_that_the_project_file_names_is_refused() -> None:
    Path("shared").mkdir()
    Path("shared").chmod(0o1777)
    for key, text in (("inventory", HOSTS), ("config", QWEN)):
        write(text, "shared/theirs.yaml")
        os.chown("shared/theirs.yaml", 65534, 65534)
        write(f"{key}: shared/theirs.yaml\n")
        refused = go("hosts")
        assert (refused.exit_code, "is another user's" in refused.stderr) == (2, True)


@needs_root
def test_an_ansible_cfg_of_another_user_counts_only_beside_an_inventory_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at somebody's logs works in their directory, with an inventory of their own."""
    theirs, own = tmp_path / "theirs", tmp_path / "own"
    for folder in (theirs, own):
        folder.mkdir()
        (folder / "hosts.ini").write_text("gpu01\n")
    (theirs / "ansible.cfg").write_text("[ssh_connection]\nssh_args = -o ProxyCommand=evil\n")
    for path in (theirs, *theirs.iterdir()):
        os.chown(path, 65534, 65534)
    monkeypatch.chdir(theirs)
    inventory = load_inventory(own / "hosts.ini")
    assert inventory.hosts[0].ssh_options is None
    assert inventory.notes == ("ansible.cfg is not read: it belongs to another user",)
    assert default_inventory({}) is None
    assert "evil" in str(load_inventory("hosts.ini").hosts[0].ssh_options)
