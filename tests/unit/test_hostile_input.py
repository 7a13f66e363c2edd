"""Whatever the user's files hold and are: an error of input, soon, in little memory, that quotes little."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from flagscale_deploy.api.planning import load_sources
from flagscale_deploy.api.recipes import settle
from flagscale_deploy.api.request import Options, PlanOptions, load_request
from flagscale_deploy.cli.complete import _deployment_of
from flagscale_deploy.diagnosis import clocks
from flagscale_deploy.errors import InputError
from flagscale_deploy.inventory.listing import hosts_json
from flagscale_deploy.inventory.load import load_hostfile, load_inventory
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.json_schema import plan_json
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.plan.validate import refuse_wrong
from flagscale_deploy.rendering.render import load_templates
from tests.unit.hostile_input import DOCUMENTS, FILES, HOSTS, VALUES

ROOT = Path(__file__).parents[2]
SECONDS = 20.0
MEMORY = 400 << 20
LONGEST_FAULT = 2500
WHOLE = os.environ.get("FSD_FAULTS") == "all"
MODEL = "model_args: {vllm_model: {model-tag: /m}}\n"


def show_plan(config: Path, hosts: Path | None, *overrides: str) -> None:
    """Do what `plan --offline --json` does."""
    request = load_request(Options(None if hosts is None else str(hosts), str(config), overrides), {"HOME": "/root"})
    refuse_wrong(request.serve)
    templates, program = load_sources(request, PlanOptions())
    made = plan(Inputs(request.inventory, request.serve, {}, "20261101T120000Z-abc123", templates, program, []))
    json.dumps(plan_json(made), allow_nan=False, ensure_ascii=False).encode()


def list_hosts(path: Path) -> None:
    """Do what `hosts --json` does."""
    json.dumps(hosts_json(load_inventory(path)), allow_nan=False, ensure_ascii=False).encode()


def beside(path: Path, name: str, text: str) -> Path:
    other = path.with_name(name)
    other.write_text(text, encoding="utf-8")
    return other


def linked(path: Path, name: str) -> Path:
    other = path.parent / name
    other.parent.mkdir(exist_ok=True)
    other.symlink_to(path)
    return other


def as_group(path: Path) -> None:
    experiment = beside(path, "experiment.yaml", f"defaults: [_self_, {{/@serve: {path.name}}}]\n")
    show_plan(experiment, beside(path, "hosts.yaml", HOSTS))


def as_group_vars(path: Path, suffix: str = "") -> None:
    linked(path, f"group_vars/all{suffix}")
    list_hosts(beside(path, "hosts.ini", "gpu01 ansible_user={{a30}}\n"))


def as_template(path: Path) -> None:
    folder = linked(path, "templates/after_stop.sh.j2").parent
    load_templates(folder).render("after_stop.sh.j2", deployment="q", host="h", stopped="x")


def as_setting(path: Path, setting: str) -> None:
    config = beside(path, "config.yaml", MODEL + setting.replace("FILE", str(path)))
    load_sources(load_request(Options(None, str(config)), {}), PlanOptions())


def as_recipe(path: Path, name: str) -> None:
    """Plan a recipe that this file is, or that it leads to."""
    linked(path, "a").unlink()
    (path.parent / "a/b/hw/h200/strategies").mkdir(parents=True)
    linked(path, f"a/b/{name}")
    words = ("hardware=h200", "strategy=x")
    options = Options("gpu01,", "recipe:a/b", words, recipes=str(path.parent))
    settle(load_request(options, {}), offline=True, environ={})


def as_plan_of_a_run(path: Path) -> None:
    linked(path, "runs/run-1").unlink()
    (path.parent / "runs/run-1").mkdir()
    linked(path, "runs/run-1/plan.json")
    _deployment_of(path.parent / "runs")


READERS: Mapping[str, Callable[[Path], object]] = {
    "serve YAML": lambda path: show_plan(path, beside(path, "hosts.yaml", HOSTS)),
    "group": as_group,
    "inventory": lambda path: list_hosts(path),
    "inventory.yaml": lambda path: list_hosts(linked(path, "linked.yaml")),
    "inventory.json": lambda path: list_hosts(linked(path, "linked.json")),
    "hostfile": load_hostfile,
    "hostfile of a file": lambda path: as_setting(path, "experiment: {runner: {hostfile: 'FILE'}}\n"),
    "group_vars": as_group_vars,
    "group_vars.json": lambda path: as_group_vars(path, ".json"),
    "secret": lambda path: as_setting(path, "deploy: {secret_files: {HF_TOKEN: 'FILE'}}\n"),
    "TLS": lambda path: as_setting(path, "deploy: {tls: {certfile: 'FILE', keyfile: 'FILE', send: true}}\n"),
    "program": lambda path: as_setting(path, "experiment: {task: {entrypoint: 'FILE'}}\ndeploy: {ray: always}\n"),
    "template": as_template,
    "recipe": lambda path: as_recipe(path, "hw/h200/strategies/x.json"),
    "recipes of a hardware": lambda path: as_recipe(path, "hw/h200.json"),
    "clocks": lambda path: clocks.read(linked(path, f"logs/{clocks.FILE}").parent),
    "plan of a run": as_plan_of_a_run,
}

SERVE_YAML = {
    "model": "model_args: {vllm_model: {model-tag: VALUE}}\n",
    "flag": "model_args: {vllm_model: {model-tag: /m, max_model_len: VALUE}}\n",
    "size": "model_args: {vllm_model: {model-tag: /m, tensor-parallel-size: VALUE}}\n",
    "models": "model_args: VALUE\n",
    "port": MODEL + "deploy: {port: VALUE}\n",
    "name": MODEL + "deploy: {name: VALUE}\n",
    "timeout": MODEL + "deploy: {timeouts: {ready: VALUE}}\n",
    "GPUs": MODEL + "deploy: {models: {vllm_model: {num_gpus: VALUE, num_replicas: VALUE}}}\n",
    "hosts": MODEL + "deploy: {models: {vllm_model: {hosts: VALUE}}}\n",
    "restart": MODEL + "deploy: {restart: {max: VALUE, backoff: VALUE}}\n",
    "router": MODEL + "deploy: {router: VALUE}\n",
    "deploy": MODEL + "deploy: VALUE\n",
    "variable": MODEL + "experiment: {envs: {A: VALUE}}\n",
    "experiment": MODEL + "experiment: VALUE\n",
    "list form": "- serve_id: VALUE\n  engine_args: {model: VALUE}\n  resources: VALUE\n",
    "nodes": MODEL + "hostfile: {nodes: [{master: {ip: VALUE, slots: VALUE, port: VALUE}}]}\n",
    "defaults": MODEL + "defaults: VALUE\n",
    "key": MODEL + "VALUE: 1\n",
    "root": "VALUE\n",
}
INVENTORIES = {
    "host": "hosts: [VALUE]\n",
    "entry": "hosts: [{name: gpu01, gpus: VALUE, port: VALUE, env: {A: VALUE}, address: VALUE}]\n",
    "default": "hosts: [gpu01]\ndefaults: {type: VALUE, host_key_checking: VALUE}\n",
    "group of hosts": "hosts: [gpu01]\ngroups: {a: VALUE}\n",
    "Ansible": "all: {hosts: {gpu01: {ansible_user: VALUE, ansible_port: VALUE, x: VALUE}}}\n",
    "Ansible's variables": "all: {hosts: {gpu01: VALUE}, vars: VALUE, children: VALUE}\n",
    "Ansible's arguments": "all: {hosts: {gpu01: {ansible_ssh_common_args: VALUE}}}\n",
    "priority": "a: {hosts: {gpu01: {}}, vars: {ansible_group_priority: VALUE}}\n",
    "all": "all: VALUE\n",
    "top": "VALUE: {hosts: {gpu01: {}}}\n",
}
INI = {
    "INI host": "VALUE\n",
    "INI variable": "gpu01 x=VALUE ansible_port=VALUE ansible_user=VALUE\n",
    "INI variables": "[a]\ngpu01\n[a:vars]\nx=VALUE\ngpus=VALUE\nansible_group_priority=VALUE\n",
    "INI section": "[VALUE]\ngpu01\n[a:children]\nVALUE\n",
    "slots": "gpu01 slots=VALUE type=VALUE\nVALUE slots=8\n",
}


def plan_with(text: str, path: Path, value: str) -> None:
    show_plan(beside(path, "config.yaml", text.replace("VALUE", value)), beside(path, "hosts.yaml", HOSTS))


def with_group_vars(text: str, path: Path, value: str) -> None:
    (path.parent / "group_vars").mkdir()
    list_with(text, ".yaml", path, value)


def list_with(text: str, suffix: str, path: Path, value: str) -> None:
    list_hosts(beside(path, f"hosts{suffix}", text.replace("VALUE", value)))


PLACES: Mapping[str, Callable[[Path, str], object]] = {
    **{place: partial(plan_with, text) for place, text in SERVE_YAML.items()},
    **{place: partial(list_with, text, ".yaml") for place, text in INVENTORIES.items()},
    "group with variables": partial(with_group_vars, "VALUE: {hosts: {gpu01: {}}}\n"),
    "templates": lambda path, value: load_templates(path.parent / value.replace("\0", "")),
    **{place: partial(list_with, text, ".ini") for place, text in INI.items()},
    "override": lambda path, value: show_plan(beside(path, "c.yaml", MODEL), None, f"deploy.port={value}"),
    "added override": lambda path, value: show_plan(beside(path, "c.yaml", MODEL), None, f"+experiment.envs.A={value}"),
    "key of an override": lambda path, value: show_plan(beside(path, "c.yaml", MODEL), None, f"+{value}.a=1"),
    "--limit": lambda path, value: load_request(Options(str(beside(path, "h.yaml", HOSTS)), limit=value)),
    "--without": lambda path, value: load_request(Options(str(beside(path, "h.yaml", HOSTS)), without=value)),
    "--name": lambda path, value: load_request(Options(str(beside(path, "h.yaml", HOSTS)), name=value)),
    "path": lambda path, value: load_request(Options(value, str(path.with_name(value[:300].replace("/", "x"))))),
}


def pairs(first: Iterable[str], second: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of two lists of names; every third, in which each name is, unless all are wanted."""
    indices = product(enumerate(first), enumerate(second))
    return [(one, other) for (at, one), (by, other) in indices if WHOLE or (at + by) % 3 == 0]


def bounded(act: Callable[[], object]) -> str:
    """Return the text of the error of an act; "" where it succeeds."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    text = ""
    try:
        act()
    except InputError as error:
        text = str(error)
        faults = error.faults
    else:
        faults = ()
    assert time.process_time() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEMORY >> 10
    assert [str(fault) for fault in faults if not (fault.where and fault.problem)] == []
    assert [str(fault) for fault in faults if len(fault.problem) > LONGEST_FAULT] == []
    return text


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", FILES)
def test_no_reader_waits_for_a_file_that_is_none(tmp_path: Path, reader: str, kind: str) -> None:
    FILES[kind](tmp_path / "x")
    bounded(lambda: READERS[reader](tmp_path / "x"))


@pytest.mark.parametrize(("reader", "kind"), pairs(READERS, DOCUMENTS))
def test_no_reader_fails_on_a_document(tmp_path: Path, reader: str, kind: str) -> None:
    content = DOCUMENTS[kind]
    (tmp_path / "x").write_bytes(content if isinstance(content, bytes) else content.encode())
    text = bounded(lambda: READERS[reader](tmp_path / "x"))
    assert not Path("/tmp/fsd-hostile").exists()
    assert not re.search(r"verysecrethash|b3BlbnNzaC1rZXk", text), "of a file that is something else nothing is quoted"


@pytest.mark.parametrize("place", PLACES)
def test_no_place_fails_on_a_value(tmp_path: Path, place: str) -> None:
    """All values in one place: thousands of tests would take longer to name than to make."""
    wrong = []
    for kind, value in [(kind, VALUES[kind]) for name, kind in pairs(PLACES, VALUES) if name == place]:
        folder = tmp_path / kind.replace(" ", "-").replace(",", "")
        folder.mkdir()
        try:
            bounded(lambda folder=folder, value=value: PLACES[place](folder / "x", value))  # type: ignore[misc]
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 (all that is none of ours)
            wrong.append((kind, type(error).__name__, str(error)[:300]))
    assert wrong == []
    assert not Path("/tmp/fsd-hostile").exists()


def mutated(text: str, chosen: random.Random) -> str:
    """Return a text with one to four parts repeated, cut, exchanged or replaced."""
    for _ in range(chosen.randint(1, 4)):
        begin, end = sorted((chosen.randrange(len(text) + 1), chosen.randrange(len(text) + 1)))
        end = min(end, begin + chosen.choice((1, 1, 5, 40)))
        part = chosen.choice(
            (
                "",
                text[begin:end] * chosen.choice((2, 3, 50)),
                chosen.choice("{}[]:,-&*!|>'\"%@`#?\t\n =~$\0\ud800\x85"),
                chosen.choice(tuple(VALUES.values()))[:400],
                f"&a [{text[begin:end]}, *a]",
                "\n" + " " * chosen.randint(0, 9),
            )
        )
        text = text[:begin] + part + text[end:]
    return text


EXAMPLES = sorted([*(ROOT / "examples").rglob("*.yaml"), *(ROOT / "inventories").iterdir()])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_no_mutated_example_fails(tmp_path: Path, example: Path) -> None:
    chosen = random.Random(example.name)
    text = example.read_text(encoding="utf-8")
    read = READERS["inventory"] if example.parent.name == "inventories" else READERS["serve YAML"]
    for number in range(2000 if WHOLE else 40):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / f"x{example.suffix}"
        path.write_text(mutated(text, chosen), encoding="utf-8", errors="surrogatepass")
        try:
            bounded(partial(read, path))
        except Exception as error:
            raise AssertionError(f"{path.read_bytes()!r}") from error
