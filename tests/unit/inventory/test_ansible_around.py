"""What Ansible knows beside an inventory's text: its own variables and filters, `ansible.cfg`, the environment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.assembly import checked
from flagscale_deploy.inventory.keys import HOST_KEYS
from flagscale_deploy.inventory.load import default_inventory, load_inventory, parse_inventory, read_inventory
from flagscale_deploy.inventory.model import Host, Inventory
from flagscale_deploy.inventory.patterns import limit
from flagscale_deploy.secrets import Secret

ENVIRON = {"HOME": "/home/me", "HF_TOKEN": "very-private", "DEPLOY_USER": "ops"}


def host(**variables: str) -> Host:
    lines = "".join(f"    {name}: {value}\n" for name, value in variables.items())
    return parse_inventory(f"all:\n  vars:\n{lines}  hosts: {{gpu01: }}\n", environ=ENVIRON).hosts[0]


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / name.replace("_ini", ".ini").replace("_cfg", ".cfg")).write_text(text, encoding="utf-8")
    return directory / "hosts.ini"


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ inventory_hostname | regex_replace('gpu', '10.0.0.') }}", "10.0.0.01"),
        ("{{ inventory_hostname | regex_replace('^(.)(.*)$', '\\\\2-\\\\1') }}", "pu01-g"),
        ("{{ inventory_hostname | regex_search('[0-9]+') }}", "01"),
        ("{{ (inventory_hostname | regex_search('gpu(.)(.)', '\\\\2', '\\\\1')) | join('') }}", "10"),
        ("{{ 'a,b,c' | split(',') | last }}", "c"),
        ("{{ 'a b' | ansible.builtin.split | first }}", "a"),
        ("{{ vpn | ternary('10.8.0.1', '10.0.0.1') }}", "10.8.0.1"),
        ("{{ none | ternary('a', 'b', 'c') }}", "c"),
        ("{{ 'yes' | bool | ternary(4294967296, 1) }}x", "4294967296x"),
        ("{{ ('off' | bool) or 'x' }}", "x"),
        ("{{ nobody | default('me') }}", "me"),
        ("{{ lookup('env', 'NONE') | default('me', true) }}", "me"),
        ("{{ lookup('env', 'DEPLOY_USER') }}", "ops"),
        ("{{ lookup('ansible.builtin.env', 'NONE', default='b') }}", "b"),
        ("{{ lookup('env', 'DEPLOY_USER', 'HOME') }}", "ops,/home/me"),
        ("x{{ vpn | mandatory }}", "xTrue"),
        ("{{ '/a/b' | basename }}{{ '/a/b' | dirname }}", "b/a"),
        ("{{ nobody | default(omit) }}", None),
        ("{{ ansible_playbook_python }}", sys.executable),
    ],
)
def test_templates_mean_what_they_mean_to_ansible(template: str, value: str | None) -> None:
    read = host(vpn="true", ansible_user=f'"{template}"')
    assert read.user == value


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ nobody | mandatory }}", "'nobody' is undefined"),
        ("{{ nobody | bool }}", "'nobody' is undefined"),
        ("{{ 'a' | regex_replace('(', '') }}", "is not a regular expression"),
        ("{{ ('a' * 30) | regex_search('(a+)+$') }}", "may take very long"),
        ("{{ lookup('pipe', 'id') }}", "lookup('pipe') is not run here"),
        ("{{ lookup('env') | first }}", "No first item"),
    ],
)
def test_what_a_template_cannot_do_is_said(template: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        host(ansible_user=f'"{template}"')
    assert problem in str(caught.value)


def test_directories_are_those_of_ansible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inventories").mkdir()
    file = write(
        tmp_path / "inventories",
        hosts_ini="gpu01 ansible_ssh_private_key_file='{{ playbook_dir }}/k' fsd_venv='{{ inventory_dir }}/v'\n"
        'gpu02 ansible_host="{{ inventory_file | basename }}"\n',
    )
    monkeypatch.chdir(tmp_path)
    first, second = load_inventory(Path("inventories") / file.name).hosts
    assert (first.identity_file, first.venv) == (f"{tmp_path}/k", f"{tmp_path}/inventories/v")
    assert second.address == "hosts.ini"


def test_a_secret_of_the_environment_stays_one_whatever_variable_takes_it() -> None:
    read = host(
        env="{TOKEN_FILE: \"x{{ lookup('env', 'HF_TOKEN') | upper }}\", PLAIN: \"{{ lookup('env', 'HOME') }}\"}"
    )
    assert read.env == {"PLAIN": "/home/me"}
    assert read.secret_env == {"TOKEN_FILE": Secret("xVERY-PRIVATE")}


TAKES_A_SECRET = ("env", "identity_file", "known_hosts", "host_key_checking", "connection")


@pytest.mark.parametrize("key", [key for key in HOST_KEYS if key not in TAKES_A_SECRET])
def test_a_secret_of_the_environment_stands_in_no_script_and_in_no_text(key: str) -> None:
    with pytest.raises(InputError) as caught:
        host(**{f"fsd_{key}": "\"{{ lookup('env', 'HF_TOKEN') | upper }}\""})
    assert "secret of your environment" in str(caught.value)
    assert "VERY-PRIVATE" not in str(caught.value).upper()


@pytest.mark.parametrize("name", ["ansible_ssh_args", "ansible_ssh_common_args", "ansible_host", "ansible_connection"])
def test_no_variable_of_ansible_shows_a_secret_of_the_environment(name: str) -> None:
    with pytest.raises(InputError) as caught:
        host(**{name: "\"-o StrictHostKeyChecking={{ lookup('env', 'HF_TOKEN') | upper }}\""})
    assert "VERY-PRIVATE" not in str(caught.value).upper()


def test_a_path_in_a_variable_whose_name_looks_secret_is_a_path(tmp_path: Path) -> None:
    text = "gpu01 ansible_user=\"{{ lookup('env', 'SSH_KEY') | basename }}\"\n"
    assert parse_inventory(text, "hosts", {"SSH_KEY": str(tmp_path)}).hosts[0].user == tmp_path.name
    with pytest.raises(InputError, match="made from a secret"):
        parse_inventory(text, "hosts", {"SSH_KEY": "tests"})


CONFIG = """\
[defaults]
remote_user = ubuntu   ; everywhere
private_key_file = keys/cluster
host_key_checking = False
[ssh_connection]
ssh_args = -o ProxyJump=bastion -C
"""


def summary(inventory: Inventory) -> list[tuple[str | None, str | None, str | None, str | None]]:
    return [(host.user, host.identity_file, host.proxy_jump, host.host_key_checking) for host in inventory.hosts]


@pytest.mark.parametrize("place", ["beside", "here"])
def test_ansible_cfg_counts_where_the_inventory_sets_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = write(tmp_path, hosts_ini="gpu01\ngpu02 ansible_user=me ansible_ssh_args='-J other'\ngpu03 fsd_user=you\n")
    folder = tmp_path if place == "beside" else tmp_path / "here"
    write(folder, ansible_cfg=CONFIG)
    key = f"{tmp_path}/keys/cluster" if place == "beside" else "keys/cluster"
    inventory = load_inventory(file)
    assert summary(inventory) == [
        ("ubuntu", key, "bastion", "off"),
        ("me", key, "other", "off"),
        ("you", key, "bastion", "off"),
    ]
    assert "remote_user, private_key_file, host_key_checking, ssh_args apply" in inventory.details[0]
    assert inventory.notes == ()


def test_the_ansible_cfg_of_the_environment_wins_and_another_form_reads_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, hosts_ini="gpu01\n", ansible_cfg=CONFIG, other_cfg="[defaults]\nremote_user=x\n")
    assert load_inventory(file, {"ANSIBLE_CONFIG": "other.cfg"}).hosts[0].user == "x"
    write(tmp_path, ansible_cfg="broken\n")
    file.write_text("hosts: [gpu01]\n", encoding="utf-8")
    assert load_inventory(file).hosts[0] == Host("gpu01", "gpu01")


def test_an_ansible_cfg_where_everybody_may_write_is_left_alone_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place := tmp_path / "open").mkdir()
    place.chmod(0o1777)
    monkeypatch.chdir(place)
    inventory = load_inventory(write(tmp_path / "open", hosts_ini="gpu01\n", ansible_cfg=CONFIG))
    assert summary(inventory) == [(None, None, None, None)]
    assert "ansible.cfg is not read: everybody may write to its directory" in inventory.notes[0]


def test_ansible_cfg_names_the_default_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_inventory({}) is None
    write(tmp_path, ansible_cfg="[defaults]\ninventory = ./hosts.ini\n")
    assert default_inventory({}) == "hosts.ini"
    write(tmp_path, ansible_cfg="[defaults]\ninventory = gpu01,gpu02\n")
    assert default_inventory({}) == "gpu01,gpu02"
    write(tmp_path, ansible_cfg="inventory = x\n")
    with pytest.raises(InputError, match="is not read: File contains no section headers"):
        default_inventory({})


def test_a_fault_of_a_host_counts_only_where_the_host_is_used() -> None:
    text = "[bad]\nold ansible_host='{{ nobody }}' fsd_gpus=x\n[gpu]\ngpu01\n"
    with pytest.raises(InputError) as caught:
        parse_inventory(text, "hosts.ini")
    assert [fault.where for fault in caught.value.faults] == ["hosts.ini:2: ansible_host", "hosts.ini:2: fsd_gpus"]


def test_a_limit_leaves_the_faults_of_other_hosts_out(tmp_path: Path) -> None:
    file = write(tmp_path, hosts_ini="[bad]\nold ansible_host='{{ nobody }}'\n[gpu]\ngpu01\n")
    inventory = read_inventory(file)
    assert checked(limit(inventory, "gpu")).names == ("gpu01",)
    with pytest.raises(InputError, match="'nobody' is undefined"):
        checked(limit(inventory, "old"))


@pytest.mark.parametrize(
    "variables",
    [
        ["ansible_connection: local", 'ansible_user: "{{ nobody }}"', "ansible_password: x"],
        ["ansible_ssh_user: me", 'ansible_user: "{{ nobody }}"'],
        ["fsd_gpus: 8", 'gpus: "{{ nobody }}"'],
        ['env: "{{ stage }}"', 'type: "{{ kind }}"'],
    ],
)
def test_what_is_not_needed_is_not_resolved(variables: list[str]) -> None:
    assert host(**dict(variable.split(": ", 1) for variable in variables))


@pytest.mark.parametrize("name", ["ansible_ssh_pass", "ansible_password", "ansible_ssh_password"])
def test_a_password_is_refused_and_not_quoted(name: str) -> None:
    with pytest.raises(InputError, match=r"logins are by key alone.*\n.*ssh-copy-id") as caught:
        host(**{name: "hunter2"})
    assert "hunter2" not in str(caught.value)


WORDS: list[tuple[str, Callable[[Host], object], object]] = [
    ("port: 8080", lambda host: host.port, None),
    ("user: appuser", lambda host: host.user, None),
    ("address: 10.0.0.9", lambda host: host.address, "gpu01"),
    ("connection: local", lambda host: host.connection, "ssh"),
    ("python: python2", lambda host: host.python, "python3"),
    ("env: production", lambda host: host.env, {}),
    ("env: {A: 1}", lambda host: host.env, {"A": "1"}),
    ("gpus: [0, 1]", lambda host: host.gpus, None),
    ("gpus: 4", lambda host: host.gpus, 4),
    ("interface: [eth0, eth1]", lambda host: host.interface, None),
    ("type: webserver", lambda host: host.type, "gpu"),
    ("type: cpu", lambda host: host.type, "cpu"),
    ("container: {image: x}", lambda host: host.container, None),
    ("fsd_type: A100", lambda host: host.type, "A100"),
    ("fsd_port: 2222", lambda host: host.port, 2222),
]


@pytest.mark.parametrize(("variable", "read", "value"), WORDS)
def test_a_bare_word_is_ours_where_its_value_is(variable: str, read: Callable[[Host], object], value: object) -> None:
    name, _, text = variable.partition(": ")
    assert read(host(**{name: text})) == value


def test_a_word_that_is_an_applications_on_one_host_is_ours_on_none() -> None:
    text = "all: {hosts: {a: {gpus: 4, venv: /v}, b: {gpus: [0, 1]}, c: {gpus: 2, fsd_gpus: 8, port: 80}}}"
    inventory = parse_inventory(text)
    assert [host.gpus for host in inventory.hosts] == [None, None, 8]
    assert inventory["a"].venv == "/v"
    assert inventory.notes == (
        "inventory:1: all.hosts.b.gpus: taken for a variable of your own; expected a whole number of GPUs, "
        "from 0 to 9999; fsd_gpus is always ours",
    )
    assert inventory.details == ("inventory: taken for variables of your own: port; SSH's are ansible_… or fsd_…",)


def test_the_prefix_is_checked_strictly() -> None:
    with pytest.raises(InputError, match=r"fsd_gpu: found the unknown key 'fsd_gpu'\n    → did you mean fsd_gpus\?"):
        host(fsd_gpu="8")
    with pytest.raises(InputError, match="fsd_gpus: found 'many', expected a whole number of GPUs"):
        host(fsd_gpus="many")
