"""A program of the user's own: what of it is sent, and how its script runs it on a host."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from flagscale_deploy.config.program_files import MOST_BYTES, load_program, program_config
from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.source import WrittenFloat
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import InputError
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.json_schema import plan_json
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.transport.bundle import library
from tests.unit.plan.given import RUN as GIVEN_RUN
from tests.unit.plan.given import TEMPLATES, faults_of, inventory, seen, taken

RUN = "20261101T120000Z-program"
SESSION = hashlib.sha256(RUN.encode()).hexdigest()[:8]


def spec(folder: Path, entrypoint: str = "app.py", **settings: Any) -> ServeSpec:
    return ServeSpec("app", (), entrypoint=entrypoint, source=str(folder / "app.yaml"), **settings)


def planned(asked: ServeSpec, host_facts: Any = None, run_id: str = GIVEN_RUN) -> Plan:
    hosts = inventory("gpu01", "gpu02")
    facts = seen(*hosts.names) if host_facts is None else host_facts
    return plan(Inputs(hosts, asked, facts, run_id, TEMPLATES, load_program(asked)))


def fault(asked: ServeSpec) -> str:
    with pytest.raises(InputError) as raised:
        load_program(asked)
    (only_fault,) = raised.value.faults
    return str(only_fault)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text("print('hello')\n")
    return tmp_path


def test_vllm_serve_needs_no_program(folder: Path) -> None:
    assert load_program(replace(spec(folder), command_line_mode=True)) is None
    assert load_program(replace(spec(folder), entrypoint=None)) is None


def test_the_script_travels_alone_with_the_library(folder: Path) -> None:
    (folder / "other.py").write_text("")
    program = load_program(spec(folder))
    assert program is not None
    assert program.entrypoint == "app.py"
    assert {name for name in program.files if name.startswith("program/")} == {"program/app.py"}
    assert {"lib/flagscale_deploy/serve/__init__.py", "alias/flagscale/__init__.py"} <= program.files.keys()


def test_its_folder_travels_if_it_says_so_without_hidden_files_caches_and_links(folder: Path) -> None:
    (folder / "app.py").write_text("import sub.helper\n#  flagscale-deploy: with-folder\n")
    for name in ("sub/helper.py", ".git/config", "__pycache__/app.pyc", "sub/data.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\xff\x00\r\n")
    (folder / "link.py").symlink_to("/etc/passwd")
    program = load_program(spec(folder))
    assert program is not None
    own = {name: text for name, text in program.files.items() if name.startswith("program/")}
    assert own.keys() == {"program/app.py", "program/sub/helper.py", "program/sub/data.bin"}
    assert own["program/sub/data.bin"].encode("utf-8", "surrogateescape") == b"\xff\x00\r\n"


def test_a_relative_path_starts_at_the_working_directory_then_at_the_configuration(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = folder / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    program = load_program(spec(folder))
    assert program is not None
    assert program.files["program/app.py"] == "print('hello')\n"
    (here / "app.py").write_text("print('here')\n")
    program = load_program(spec(folder))
    assert program is not None
    assert program.files["program/app.py"] == "print('here')\n"


def test_a_program_that_is_not_there_is_named_with_the_places_it_was_looked_for(folder: Path) -> None:
    text_of_fault = fault(spec(folder, "nosuch.py"))
    assert (
        f"{folder}/app.yaml: experiment.task.entrypoint: there is no file nosuch.py and {folder}/nosuch.py"
        in text_of_fault
    )


def test_models_and_data_do_not_travel(folder: Path) -> None:
    (folder / "app.py").write_text("# flagscale-deploy: with-folder\n")
    for name in ("a.bin", "b.bin"):
        (folder / name).write_bytes(b"x" * (MOST_BYTES // 2))
    assert "holds more than 4 MiB" in fault(spec(folder))
    (folder / "app.py").write_bytes(b"#" * (MOST_BYTES + 1))
    assert "is larger than 4.0 MiB" in fault(spec(folder))


def test_another_program_is_another_deployment(folder: Path) -> None:
    first = planned(spec(folder)).digest
    assert planned(spec(folder)).digest == first
    (folder / "app.py").write_text("print('changed')\n")
    assert planned(spec(folder)).digest != first


def test_its_configuration_is_plain_yaml_with_the_options_where_programs_look() -> None:
    document = {"serve": {"model_args": {"m": {"eps": WrittenFloat("1e-5"), "n": 3, "on": True, "no": None}}}}
    asked = ServeSpec("app", (), document=document, entrypoint="a.py", remote_options={"m": {"num_gpus": 0.5}})
    written = yaml.safe_load(program_config(asked))
    assert written["serve"]["model_args"]["m"] == {"eps": 1e-5, "n": 3, "on": True, "no": None}
    assert written["serve"]["deploy"] == {"models": {"m": {"num_gpus": 0.5}}}
    listed = replace(asked, document={"serve": [{"serve_id": "m"}], "experiment": {"exp_name": "app"}})
    assert yaml.safe_load(program_config(listed))["experiment"]["deploy"] == {"models": {"m": {"num_gpus": 0.5}}}


def test_it_is_planned_as_a_driver_on_the_head_with_all_gpus_in_ray(folder: Path) -> None:
    made = planned(spec(folder, program_port=8123))
    (instance,) = made.instances
    assert (instance.name, instance.engine, instance.driver) == ("app/0", "program", "gpu01")
    assert {host: len(gpus) for host, gpus in instance.gpus.items()} == {"gpu01": 8, "gpu02": 8}
    assert [node.num_gpus for node in made.ray.nodes] == [8, 8]
    assert made.gpus["gpu02"] == dict.fromkeys(range(8), "app/0")
    assert instance.env["RAY_ADDRESS"] == made.ray.address
    assert instance.endpoint == "http://10.0.0.1:8123"
    assert instance.addresses == {
        "http://127.0.0.1:8123": "http://10.0.0.1:8123",
        "http://10.0.0.1:8123": "http://10.0.0.1:8123",
        "http://10.0.0.2:8123": "http://10.0.0.2:8123",
    }
    shown: Any = plan_json(made)
    assert shown["program"] == {"files": {"app.py": hashlib.sha256(b"print('hello')\n").hexdigest()}}
    assert shown["stages"][-1]["steps"] == [{"host": "gpu01", "script": "program_app.sh"}]


def test_its_port_has_to_be_free_wherever_a_task_may_listen(folder: Path) -> None:
    asked = spec(folder, program_port=8123)
    host_facts = {**seen("gpu01"), **seen("gpu02", ports=(taken(8123),))}
    with pytest.raises(InputError.__mro__[1]) as raised:
        planned(asked, host_facts)
    assert "port 8123 on gpu02, for app/0, is in use by nginx (pid 99)" in str(raised.value)


def test_it_needs_ray_and_no_vllm_and_no_router(folder: Path) -> None:
    asked = spec(folder)
    assert planned(asked, seen("gpu01", "gpu02", vllm=None)).ray.enabled
    off = replace(asked, ray=replace(asked.ray, mode="off"), router=replace(asked.router, enabled=True))
    assert [fault.problem for fault in faults_of(inventory("gpu01"), off)] == [
        "app.py runs on Ray, but deploy.ray is off", "app.py is a program of your own, which has no router",
    ]  # fmt: skip


class Host:
    """A state directory as the launcher fills it, and the scripts run in it by real bash."""

    def __init__(self, home: Path, made: Plan) -> None:
        self.state = home / "state"
        for name, text in {**{f"app/{name}": text for name, text in made.app.items()},
                           **{f"scripts/{name}": text for name, text in made.scripts["gpu01"].items()},
                           "secrets/config.yaml": "experiment: {exp_name: app}\n"}.items():  # fmt: skip
            (self.state / name).parent.mkdir(parents=True, exist_ok=True)
            (self.state / name).write_text(text)

    def run(self, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", str(self.state / "scripts/program_app.sh")], env={"PATH": path, "HOME": "/nowhere", **(env or {})},
            capture_output=True, text=True, timeout=60, check=False, cwd="/",
        )  # fmt: skip


@pytest.fixture
def tidy() -> Iterator[None]:
    yield
    shutil.rmtree(f"/tmp/fsd-{os.getuid()}-{SESSION}", ignore_errors=True)


WHAT_IT_SEES = """\
import os, sys
from flagscale import serve
import flagscale.serve, flagscale_deploy.serve
assert flagscale.serve is flagscale_deploy.serve is serve
print(sys.argv[1:], os.getcwd(), serve.task_config.experiment.exp_name, serve.task_config.log_dir)
print(os.path.isdir(serve.task_config.log_dir), os.environ["FLAGSCALE_DEPLOY_CONFIG"])
"""


@pytest.mark.usefixtures("tidy")
def test_its_script_gives_it_configuration_logs_and_the_library(folder: Path) -> None:
    (folder / "app.py").write_text(WHAT_IT_SEES)
    host = Host(folder, planned(spec(folder), run_id=RUN))
    ended = host.run()
    assert ended.returncode == 0, ended.stderr
    config, logs = host.state / "secrets/config.yaml", host.state / "logs/app"
    assert ended.stdout.splitlines() == [
        f"['--config-path={config}', '--log-dir={logs}'] {host.state / 'app/program'} app {logs}", f"True {config}",
    ]  # fmt: skip
    assert (host.state / "app/exit").read_text() == "0\n"


@pytest.mark.usefixtures("tidy")
def test_a_flagscale_of_the_hosts_own_wins(folder: Path) -> None:
    (folder / "app.py").write_text("import flagscale; print(flagscale.__file__)")
    own = folder / "site/flagscale/__init__.py"
    own.parent.mkdir(parents=True)
    own.write_text("")
    ended = Host(folder, planned(spec(folder), run_id=RUN)).run({"PYTHONPATH": str(folder / "site")})
    assert ended.stdout.strip() == str(own), ended.stderr


@pytest.mark.usefixtures("tidy")
def test_how_it_ended_is_noted(folder: Path) -> None:
    (folder / "app.py").write_text("raise SystemExit(7)")
    host = Host(folder, planned(spec(folder), run_id=RUN))
    assert host.run().returncode == 7
    assert (host.state / "app/exit").read_text() == "7\n"


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("port", [None, 8123])
def test_a_supervised_one_runs_the_same_and_may_end_where_it_answers_nowhere(folder: Path, port: int | None) -> None:
    (folder / "app.py").write_text(WHAT_IT_SEES + "raise SystemExit(7)")
    made = planned(spec(folder, program_port=port, restart=RestartSpec("on-failure")), run_id=RUN)
    host = Host(folder, made)
    for name, text in library("supervise").items():
        (host.state / "supervisor" / name).parent.mkdir(parents=True, exist_ok=True)
        (host.state / "supervisor" / name).write_text(text)
    ended = host.run()
    assert ended.returncode == 7, ended.stderr
    assert f"True {host.state / 'secrets/config.yaml'}" in ended.stdout
    assert (host.state / "app/exit").read_text() == "7\n"
    script = made.scripts["gpu01"]["program_app.sh"]
    assert ("--may-end" in script) == (port is None)
    assert "--ray-gpus=0 " in script, "its tasks hold what they hold: only nodes are waited for"


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("name", ["it's $(touch x) `touch x`.py", "-rf.py", "ünï 模型.py", '"; touch x; ".py'])
def test_a_hostile_name_is_a_name(folder: Path, name: str) -> None:
    (folder / name).write_text("print('ran')")
    made = planned(spec(folder, name), run_id=RUN)
    host = Host(folder, made)
    (host.state / "scripts" / made.instances[0].script).rename(host.state / "scripts/program_app.sh")
    ended = host.run()
    assert (ended.returncode, ended.stdout) == (0, "ran\n"), ended.stderr
    assert not list(host.state.rglob("x"))


def test_a_folder_without_end_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "app.py").write_text("# flagscale-deploy: with-folder\n")
    monkeypatch.chdir(folder)
    for _ in range(1100):  # deeper than Python's recursion
        os.mkdir("d")
        os.chdir("d")
    os.chdir(folder)
    assert "is more than 50 levels deep" in fault(spec(folder))
    subprocess.run(["rm", "-rf", "d"], check=True)  # pytest's own removal fails of it in a later session
