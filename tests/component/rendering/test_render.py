"""Every template through real bash: values arrive as they are, nothing in them is executed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.spec import RouterSpec
from flagscale_deploy.deploy.launch import secret_files
from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.stages import boot_steps
from flagscale_deploy.rendering.render import SUFFIX, Templates, load_templates
from flagscale_deploy.secrets import Secret
from flagscale_deploy.transport.bundle import library
from tests.unit.plan.given import TEMPLATES, host, inventory, model, planned, spec

RUN = f"render-{os.getpid()}"
SESSION = hashlib.sha256(RUN.encode()).hexdigest()[:8]
"""Scripts make `/tmp/fsd-<uid>-<session>`; no other test has this one."""

HOSTILE = {
    "quotes": """it's "quoted" `touch x`""",
    "substitution": "$(touch x)${HOME}$HOME",
    "newlines": "two\nlines\n",
    "unicode": "ünïcode 模型 \U0001f600",
    "dash": "-rf",
    "backslash": "a\\b\\",
    "glob": "* ? [a-z] ~ {a,b}",
    "history": "!! !$ #comment ; touch x & touch x | touch x",
    "jinja": "{{ 1 }} {% raw %}",
    "blanks": "  \t spaces ",
    "empty": "",
}

RECORDER = """#!/usr/bin/env bash
printf '%s\\0' "${0##*/}" "$@" >> "$RECORD/argv"
env -0 >> "$RECORD/env"
"""

RAY_MODULE = '''
"""Stands in for Ray: two nodes, as RAY_NODES says. A driver may ask once it is one."""
import json, os

drivers = []


def init(**settings):
    drivers.append(settings)


def nodes():
    assert drivers
    return json.loads(os.environ["RAY_NODES"])


def available_resources():
    return {"GPU": float(len(drivers))}
'''
RAY_UTIL = """
def placement_group_table():
    waits = {"state": "PENDING", "bundles": {0: {"GPU": 1.0, "node:10.0.0.1": 0.001}, 1: {"GPU": 1.0}}}
    return {"a": waits, "b": {**waits, "state": "CREATED"}}
"""
RAY_INTERNAL = """
import json, os
from ray.util import placement_group_table


class State:
    def node_table(self):
        return json.loads(os.environ["RAY_NODES"])

    def available_resources(self):
        return {"GPU": 7.0}

    def placement_group_table(self):
        return placement_group_table()


def get_state_from_address(address):
    assert address == "10.0.0.1:6379", address
    return State()
"""


@dataclass
class Bench:
    """A place to run scripts in: PATH has `ray` and `vllm` that record how they were called."""

    folder: Path

    def run(self, script: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        scripts = self.folder / "state" / "scripts"
        scripts.mkdir(parents=True, exist_ok=True)
        (scripts / "script.sh").write_text(script, encoding="utf-8")
        return subprocess.run(
            ["bash", str(scripts / "script.sh"), *words],
            cwd=self.work,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "HOME": str(self.folder),
                "RECORD": str(self.record),
                "PYTHONPATH": str(self.folder / "modules"),
                **env,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def record(self) -> Path:
        return self.folder / "record"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def started(self) -> bool:
        return (self.record / "argv").exists()

    def called(self, script: str, *words: str, **env: str) -> Called:
        """How the script called the program it ends in; nothing may lie about afterwards."""
        for name in ("argv", "env"):
            (self.record / name).unlink(missing_ok=True)
        ended = self.run(script, *words, **env)
        assert ended.returncode == 0, ended.stderr
        assert not ended.stderr
        assert not list(self.work.iterdir())
        variables = dict(text.split("=", 1) for text in texts(self.record / "env"))
        return Called(texts(self.record / "argv"), variables)


def texts(file: Path) -> list[str]:
    """Texts that end with a NUL byte."""
    return file.read_bytes().decode().split("\0")[:-1]


@dataclass
class Called:
    """A program that was called."""

    argv: list[str]
    env: dict[str, str]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    for name in ("bin", "modules", "record", "work"):
        (tmp_path / name).mkdir()
    for name in ("ray", "vllm", "vllm-router"):
        (tmp_path / "bin" / name).write_text(RECORDER)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "modules" / "ray").mkdir()
    (tmp_path / "modules" / "ray" / "__init__.py").write_text(RAY_MODULE)
    (tmp_path / "modules" / "ray" / "util.py").write_text(RAY_UTIL)
    yield Bench(tmp_path)
    shutil.rmtree(f"/tmp/fsd-{os.getuid()}-{SESSION}", ignore_errors=True)


def scripts_of(*, value: str = "v", hosts: tuple[Host, ...] | None = None, **settings: Any) -> Mapping[str, str]:
    """Every script of a deployment over two hosts, by name; `value` stands wherever a user's text may."""
    made = planned(
        inventory(*(hosts or (host("gpu01", env={"HOSTS_OWN": value}), host("gpu02")))),
        spec(model(model=value or "m", tp=16, engine_args={"chat-template": value, "x": {"k": [value]}}),
             env={"USERS_OWN": value}, **settings),
        run_id=RUN,
    )  # fmt: skip
    return {name: text for files in made.scripts.values() for name, text in files.items()}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_vllm_gets_hostile_values_as_they_are(bench: Bench, value: str) -> None:
    call = bench.called(scripts_of(value=value)["vllm_serve_qwen_0.sh"])
    assert call.argv == [
        "vllm", "serve", value or "m", f"--chat-template={value}",
        f"--x={json.dumps({'k': [value]}, ensure_ascii=False, separators=(',', ':'))}",
        "--tensor-parallel-size=16", "--distributed-executor-backend=ray", "--port=8000",
    ]  # fmt: skip
    assert call.env["USERS_OWN"] == call.env["HOSTS_OWN"] == value
    assert call.env["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert call.env["VLLM_HOST_IP"] == "10.0.0.1"


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("template", ["ray_head.sh.j2", "ray_worker.sh.j2", "vllm_serve.sh.j2", "after_stop.sh.j2"])
def test_hostile_names_execute_nothing_in_any_template(bench: Bench, template: str, value: str) -> None:
    """Names of hosts and deployments stand in comments, custom resources in JSON."""
    made = planned(
        inventory(Host(value or "h", "10.0.0.1", type=value or "t", gpus=4)), spec(name=value or "d", ray="on"), {}
    )
    node = replace(made.ray.nodes[0], node_ip=value, num_cpus=4.0)
    with socket.create_server(("127.0.0.1", 0)) as head:
        ray = replace(made.ray, head_ip="127.0.0.1", port=head.getsockname()[1], session=SESSION)
        script = TEMPLATES.render(
            template, run_id=value, deployment=value, host=value, ray=ray, ray_enabled=True, venv=None,
            before_start=None, after_stop="vllm", env={"E": value}, node=node, timeout=5.0, instance=made.instances[0],
            restart=None, warm=True, packages=False, weights=["~/" + value],
        )  # fmt: skip
        call = bench.called(script)
    assert call.env["E"] == value
    if "ray_" in template:
        assert call.argv[:2] == ["ray", "start"]
        assert f"--node-ip-address={value}" in call.argv
        assert f"--resources={json.dumps({value or 't': 3.0}, ensure_ascii=False)}" in call.argv
        assert "--num-cpus=4.0" in call.argv


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_any_text_arrives(bench: Bench, value: str) -> None:
    call = bench.called(scripts_of(value=value)["vllm_serve_qwen_0.sh"])
    assert call.argv[3] == f"--chat-template={value}"
    assert call.env["USERS_OWN"] == value


def test_ray_head_starts_as_planned(bench: Bench) -> None:
    call = bench.called(scripts_of()["ray_head.sh"])
    assert call.argv == [
        "ray", "start", "--head", "--node-ip-address=10.0.0.1", "--port=6379", "--num-gpus=8",
        f"--temp-dir=/tmp/fsd-{os.getuid()}-{SESSION}/ray", "--include-dashboard=true", "--dashboard-host=127.0.0.1",
        "--dashboard-port=8265", "--dashboard-agent-listen-port=52365", "--ray-client-server-port=10001",
        "--disable-usage-stats",
    ]  # fmt: skip
    assert call.env["RAY_AUTH_MODE"] == "token"
    assert call.env["RAY_AUTH_TOKEN_PATH"] == str(bench.folder / "state" / "secrets" / "ray_token")
    assert call.env["GLOO_SOCKET_IFNAME"] == call.env["NCCL_SOCKET_IFNAME"] == "eth0"


CAT = r"""#!/bin/bash
printf '%s\0' "$@" >>"$RECORD/read"
"""
"""Stands in for cat: tells what would be read ahead. (The stand-in for fincore tells what is in memory.)"""


@pytest.mark.parametrize(
    ("warm", "size", "resident", "read"),
    [(True, 3, "    0", True), (True, 3, "3", False), (True, 1 << 43, "0", False), (False, 3, "0", False)],
    ids=["fits", "in memory already", "larger than memory", "switched off"],
)
def test_weights_are_read_ahead_where_they_fit(bench: Bench, warm: bool, size: int, resident: str, read: bool) -> None:
    for name, content in (("cat", CAT), ("fincore", f"#!/bin/sh\necho '{resident}'\n")):
        (bench.folder / "bin" / name).write_text(content)
        (bench.folder / "bin" / name).chmod(0o755)
    weights = bench.folder / "it's $(a model)"
    weights.mkdir()
    for name in ("a.safetensors", "b c.bin", "config.json"):
        (weights / name).write_text("xyz")
    os.truncate(weights / "a.safetensors", size)
    made = planned(inventory("gpu01"), spec(model(model=str(weights)), ray="on", warm=warm), run_id=RUN)
    scripts = bench.folder / "state" / "scripts"
    scripts.mkdir(parents=True)
    (scripts / "warm.sh").write_text(made.scripts["gpu01"].get("warm.sh", ""))
    bench.called(made.scripts["gpu01"]["ray_head.sh"].replace("exec ray", "ray") + "\nwait\n")
    record_file = bench.record / "read"
    seen = sorted(text for text in texts(record_file) if text.startswith("/")) if record_file.exists() else []
    assert seen == ([str(weights / "a.safetensors"), str(weights / "b c.bin")] if read else [])


def test_no_ray_no_token(bench: Bench) -> None:
    made = planned(inventory("gpu01"), spec(), run_id=RUN)
    call = bench.called(made.scripts["gpu01"]["vllm_serve_qwen_0.sh"])
    assert "RAY_AUTH_MODE" not in call.env


def test_a_worker_gives_up_on_a_head_that_does_not_come(bench: Bench) -> None:
    made = planned(inventory(host("gpu01", node_ip="127.0.0.1", gpus=8)), spec(ray="on"), {}, run_id=RUN)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    context = {
        "run_id": "r", "deployment": "d", "host": "h", "ray": replace(made.ray, port=port), "ray_enabled": True,
        "venv": None, "before_start": None, "env": {}, "node": made.ray.nodes[0], "timeout": 0.4, "warm": False,
        "restart": None,
    }  # fmt: skip
    ended = bench.run(TEMPLATES.render("ray_worker.sh.j2", **context))
    assert ended.returncode == 1
    assert f"Ray's head 127.0.0.1:{port} cannot be reached from here" in ended.stderr
    assert not bench.started


NODE = {"Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": {"GPU": 8.0}}


@pytest.mark.parametrize(
    ("nodes", "code", "missing"),
    [
        ([NODE, {**NODE, "NodeManagerAddress": "10.0.0.2"}], 0, []),
        ([NODE], 1, ["10.0.0.2: no node"]),
        ([NODE, {**NODE, "NodeManagerAddress": "10.0.0.2", "Alive": False}], 1, ["10.0.0.2: no node"]),
        ([NODE, {**NODE, "NodeManagerAddress": "10.0.0.2", "Resources": {}}], 1, ["10.0.0.2: 0 of 8 GPUs"]),
    ],
    ids=["complete", "a node missing", "a node dead", "gpus missing"],
)
@pytest.mark.parametrize("driver", [False, True])
def test_ray_nodes_counts_nodes_and_gpus(bench: Bench, nodes: Any, code: int, missing: list[str], driver: bool) -> None:
    if not driver:
        internal = bench.folder / "modules" / "ray" / "_private"
        internal.mkdir()
        (internal / "internal_api.py").write_text(RAY_INTERNAL)
    ended = bench.run(scripts_of()["ray_nodes.sh"], "0", RAY_NODES=json.dumps(nodes))
    assert ended.returncode == code, ended.stderr
    answer = json.loads(ended.stdout.splitlines()[-1])
    assert answer["missing"] == missing
    assert answer["available"] == {"GPU": 1.0 if driver else 7.0}
    assert answer["pending"] == 2.0


def test_a_raylet_that_has_died_is_missed_before_ray_misses_it_where_it_may_be_restarted(bench: Bench) -> None:
    internal = bench.folder / "modules" / "ray" / "_private"
    internal.mkdir(parents=True, exist_ok=True)
    (internal / "internal_api.py").write_text(RAY_INTERNAL)
    script = scripts_of(restart=RestartSpec(policy="on-failure"))["ray_nodes.sh"]
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [server.getsockname()[1] for server in (listening, taken)]
        taken.close()
        places = ("10.0.0.1", "10.0.0.2")
        expected = json.dumps(dict.fromkeys(places, 8))
        assert shlex.quote(expected) in script
        nodes = [{**NODE, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port, "Alive": True} for port in ports]
        here = script.replace(shlex.quote(expected), shlex.quote('{"127.0.0.1": 8}'))
        ended = bench.run(here, "0", RAY_NODES=json.dumps(nodes[:1]))
        assert (ended.returncode, json.loads(ended.stdout.splitlines()[-1])["missing"]) == (0, [])
        ended = bench.run(here, "0", RAY_NODES=json.dumps(nodes))
    assert ended.returncode == 1
    assert json.loads(ended.stdout.splitlines()[-1])["missing"] == ["127.0.0.1: a raylet that has died"]


def test_notify_runs_as_written(bench: Bench) -> None:
    scripts = scripts_of(restart=RestartSpec("on-failure", notify="cat; echo \"$UNSET_ONE'a b'\""))
    assert "--notify" in scripts["ray_head.sh"]
    ended = bench.run(scripts["notify.sh"])
    assert (ended.returncode, ended.stdout) == (0, "'a b'\n")


def test_ray_starts_no_worker_before_one_is_wanted_unless_the_user_wants_it(bench: Bench) -> None:
    name = "RAY_prestart_worker_first_driver"
    for script in ("ray_head.sh", "ray_worker.sh"):
        assert bench.called(scripts_of()[script]).env[name] == "0"
        assert bench.called(scripts_of(before_start=f"export {name}=1")[script]).env[name] == "1"


def test_secrets_are_read_from_their_file_and_are_in_no_script(bench: Bench) -> None:
    value = "s3cr3t 'x' $(touch x)\n!"
    files = secret_files({"HF_TOKEN": Secret(value)}, Secret("token"))
    (bench.folder / "state" / "secrets").mkdir(parents=True)
    for name, text in files.items():
        (bench.folder / "state" / name).write_text(text)
    scripts = scripts_of(secret_env={"HF_TOKEN": Secret(value)})
    assert bench.called(scripts["vllm_serve_qwen_0.sh"]).env["HF_TOKEN"] == value
    assert not any("s3cr3t" in text for text in scripts.values())


def test_before_start_is_shell_as_the_user_wrote_it(bench: Bench) -> None:
    written = "export A=\"$(echo computed)\"\n# a comment\nif true; then export B='it''s'; fi"
    env = bench.called(scripts_of(before_start=written)["vllm_serve_qwen_0.sh"]).env
    assert (env["A"], env["B"]) == ("computed", "its")


def test_the_hosts_before_start_comes_after_the_deployments(bench: Bench) -> None:
    hosts = (host("gpu01", before_start="export A=${A}2"), host("gpu02"))
    assert bench.called(scripts_of(hosts=hosts, before_start="export A=1")["ray_head.sh"]).env["A"] == "12"


@pytest.mark.parametrize(
    "written",
    ["false", "exit 7", "true && false", "source /no/such/file", "no_such_command", "false\ntrue", "[ -z x ]"],
)
def test_a_before_start_that_fails_ends_the_script_and_says_so(bench: Bench, written: str) -> None:
    ended = bench.run(scripts_of(before_start=written)["vllm_serve_qwen_0.sh"])
    assert ended.returncode != 0
    assert "before_start failed" in ended.stderr
    assert not bench.started


def test_a_before_start_that_ends_the_script_is_no_success(bench: Bench) -> None:
    ended = bench.run(scripts_of(before_start="exit 0")["ray_head.sh"])
    assert ended.returncode == 1
    assert "before_start failed: it ended this script with exit status 0" in ended.stderr
    assert not bench.started


@pytest.mark.parametrize("how", ["venv", "before_start"])
def test_activation_scripts_may_read_unset_variables(bench: Bench, how: str) -> None:
    activate = bench.folder / "it's an env" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text('if [ "$SOME_UNSET_VARIABLE" = x ]; then false; fi\nexport ACTIVATED=1\n')
    venv = str(activate.parent.parent)
    settings = {"venv": venv} if how == "venv" else {"before_start": f'. "{activate}"'}
    hosts = (host("gpu01", **settings), host("gpu02"))
    assert bench.called(scripts_of(hosts=hosts)["vllm_serve_qwen_0.sh"]).env["ACTIVATED"] == "1"


def test_a_venv_that_is_not_there_ends_the_script(bench: Bench) -> None:
    ended = bench.run(scripts_of(hosts=(host("gpu01", venv="/no/such/venv"), host("gpu02")))["ray_head.sh"])
    assert ended.returncode != 0
    assert "/no/such/venv/bin/activate" in ended.stderr
    assert not bench.started


def test_a_venv_below_home_is_found(bench: Bench) -> None:
    activate = bench.folder / "env" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("export ACTIVATED=1\n")
    hosts = (host("gpu01", venv="~/env"), host("gpu02"))
    assert bench.called(scripts_of(hosts=hosts)["ray_head.sh"]).env["ACTIVATED"] == "1"


def test_after_stop_runs_as_written(bench: Bench) -> None:
    ended = bench.run(scripts_of(after_stop="echo \"gone: $UNSET_ONE\"; echo 'a b'")["after_stop.sh"])
    assert (ended.returncode, ended.stdout) == (0, "gone: \na b\n")


def test_scripts_are_executable_bash_that_stops_at_errors() -> None:
    for name, text in scripts_of(after_stop="true").items():
        assert text.startswith("#!/usr/bin/env bash\n"), name
        assert "set -euo pipefail\n" in text, name
        assert text.endswith("\n"), name
        assert not text.endswith("\n\n\n"), name


def test_bash_reads_every_script_and_shellcheck_likes_it_where_there_is_one(tmp_path: Path) -> None:
    for name, text in scripts_of(value=HOSTILE["quotes"], before_start="true", after_stop="true").items():
        (tmp_path / name).write_text(text)
        subprocess.run(["bash", "-n", str(tmp_path / name)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-S", "warning", *map(str, tmp_path.iterdir())], check=True)


def override(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.sh{SUFFIX}").write_text(text)
    return folder


def test_a_users_template_takes_the_place_of_one(tmp_path: Path) -> None:
    sources = load_templates(override(tmp_path, ray_head="echo {{ ray.port }}\n"))
    made = planned(inventory("gpu01"), spec(ray="on"), templates=sources)
    assert made.scripts["gpu01"]["ray_head.sh"] == "echo 6379\n"
    assert (
        made.scripts["gpu01"]["ray_nodes.sh"]
        == planned(inventory("gpu01"), spec(ray="on")).scripts["gpu01"]["ray_nodes.sh"]
    )


def test_a_users_template_may_include_the_packaged_ones(tmp_path: Path) -> None:
    sources = load_templates(override(tmp_path, ray_head='{% include "_environment.sh.j2" %}\n'))
    assert (
        "set -euo pipefail"
        in planned(inventory("gpu01"), spec(ray="on"), templates=sources).scripts["gpu01"]["ray_head.sh"]
    )


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("{% if %}", "ray_head.sh.j2:1", "Expected an expression"),
        ("a\n{{ x | nosuch }}", "ray_head.sh.j2:2", "No filter named 'nosuch'"),
        ("\n{{ nosuch }}", "ray_head.sh.j2:2", "'nosuch' is undefined"),
        ("{{ ray.nosuch }}", "ray_head.sh.j2:1", "has no attribute 'nosuch'"),
        ("{{ venv }}", "ray_head.sh.j2:1", "None"),
        ('{% include "nosuch" %}', "ray_head.sh.j2:1", "there is no template nosuch"),
        ("{{ 1 / 0 }}", "ray_head.sh.j2:1", "division by zero"),
        ("{{ ray.port + 'x' }}", "ray_head.sh.j2:1", "unsupported operand"),
    ],
)
def test_a_broken_template_is_named(tmp_path: Path, text: str, place: str, problem: str) -> None:
    sources = load_templates(override(tmp_path, ray_head=text))
    with pytest.raises(InputError) as raised:
        planned(inventory("gpu01"), spec(ray="on"), templates=sources)
    (fault,) = raised.value.faults
    assert fault.where == f"{tmp_path}/{place}"
    assert problem in fault.problem


def test_a_packaged_template_without_a_value_is_named_with_its_line() -> None:
    with pytest.raises(InputError) as raised:
        TEMPLATES.render("ray_head.sh.j2", deployment="d", host="h", run_id="r")
    assert re.fullmatch(r"_environment\.sh\.j2:\d+", raised.value.faults[0].where)


def _not_utf8(folder: Path) -> Path:
    (folder / "ray_head.sh.j2").write_bytes(b"\xff\xfe")
    return folder


def _a_folder(folder: Path) -> Path:
    (folder / "ray_head.sh.j2").mkdir()
    return folder


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda folder: folder / "nosuch", "templates: no such directory"),
        (lambda folder: override(folder, ray_haed="x"), "overrides no template"),
        (_not_utf8, "is text in UTF-16"),
        (_a_folder, "is a folder"),
    ],
    ids=["no directory", "another name", "not UTF-8", "a folder"],
)
def test_a_directory_of_templates_that_is_no_good(tmp_path: Path, make: Callable[[Path], Path], problem: str) -> None:
    with pytest.raises(InputError) as raised:
        load_templates(make(tmp_path))
    (fault,) = raised.value.faults
    assert str(tmp_path) in fault.where
    assert problem in fault.problem


def test_a_nul_byte_is_a_fault_and_no_crash() -> None:
    with pytest.raises(InputError) as raised:
        Templates({"x": "{{ value }}"}).render("x", value="a\0b")
    assert "NUL" in raised.value.faults[0].problem


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_supervised_server_gets_hostile_values_as_they_are(bench: Bench, value: str) -> None:
    """Through the supervisor itself: without a licence it ends with the server."""
    for name, text in library("supervise").items():
        path = bench.folder / "state/supervisor" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    plain, guarded = scripts_of(value=value), scripts_of(value=value, restart=RestartSpec(policy="on-failure"))
    script = "vllm_serve_qwen_0.sh"
    assert bench.called(guarded[script]).argv == bench.called(plain[script]).argv
    assert bench.called(guarded["ray_head.sh"], "start").argv == bench.called(plain["ray_head.sh"]).argv
    on_ray = {"ray_head.sh", "ray_worker.sh", "ray_nodes.sh"}
    assert {name for name in plain if plain[name] != guarded[name]} == {script, *on_ray}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_a_reboot_starts_is_named_as_it_is(bench: Bench, value: str) -> None:
    made = planned(inventory("gpu01", "gpu02"), spec(model(tp=16), restart=RestartSpec(boot=True)), run_id=RUN)
    (bench.folder / "state/logs").mkdir(parents=True)
    script = TEMPLATES.render(
        "boot.sh.j2", run_id=value, deployment=value, host=value, ray=made.ray, python="vllm", ray_seconds=5.0,
        restart=None, stopped=3, steps=boot_steps(made, "gpu01"),
    )  # fmt: skip
    call = bench.called(script)
    assert call.env["FLAGSCALE_DEPLOY_RUN"] == f"{value}/{value}"
    assert [word for word in call.argv if word.startswith("--host=")] == [f"--host={value}"] * 3
    asked = [word.partition("=")[2] for word in call.argv if word.startswith("--script=")]
    assert asked == ["ray_head.sh", "ray_nodes.sh", "vllm_serve_qwen_0.sh"]
    assert [step.script for step in boot_steps(made, "gpu02")] == ["ray_worker.sh"]


def test_every_template_was_rendered_above() -> None:
    restart = RestartSpec("on-failure", notify="true")
    rendered = {f"{name}{SUFFIX}" for name in scripts_of(after_stop="true", restart=restart)}
    rendered = {re.sub(r"vllm_serve_\w+\.sh", "vllm_serve.sh", name) for name in rendered}
    rendered |= {"router.sh.j2"}  # below
    rendered |= {"gate.sh.j2"}  # in tests/unit/plan/test_gate.py
    rendered |= {"program.sh.j2", "_program.sh.j2"}  # in test_program.py
    rendered |= {"boot.sh.j2", "_supervise.sh.j2"}  # above
    assert rendered | {"_environment.sh.j2", "_raylet.sh.j2", "_warm.sh.j2"} == set(TEMPLATES.sources)


def test_the_router_gets_hostile_options_as_they_are(bench: Bench) -> None:
    value = HOSTILE["substitution"]
    asked = spec(model(tp=1, replicas=2), router=RouterSpec(options={"log-dir": value}))
    made = planned(inventory("gpu01", "gpu02"), asked, run_id=RUN)
    call = bench.called(made.scripts["gpu01"]["router_qwen.sh"])
    assert call.argv == [*made.routers[0].argv]
    assert f"--log-dir={value}" in call.argv
