"""The library that a program imports, with a Ray that writes down how it is called."""

from __future__ import annotations

import ast
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy import serve
from flagscale_deploy.serve.config import CONFIG_VARIABLE, LOGS_VARIABLE, Config
from flagscale_deploy.serve.tasks import configured

CONFIG = """\
experiment: {exp_name: app}
serve:
  model_args: {vllm_model: {model-tag: /m, action-args: [a]}}
  deploy:
    models:
      vllm_model: {num_gpus: 2, max-retries: 0, hosts: "gpu*", replicas: 3, num_cpus: null}
"""


class Ray(types.ModuleType):
    """Stands in for Ray: no cluster, but what was asked of it."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.asked: list[Any] = []
        self.initialized = False

    def remote(self, *targets: Any, **options: Any) -> Any:
        if targets:
            return (targets[0], None)
        assert options, "Ray refuses ray.remote()"
        return lambda target: (target, options)

    def init(self, **settings: Any) -> None:
        self.initialized = True
        self.asked.append(("init", settings))

    def is_initialized(self) -> bool:
        return self.initialized

    def get(self, work: Any) -> Any:
        return [f"got {reference}" for reference in work] if isinstance(work, list) else f"got {work}"

    def shutdown(self) -> None:
        self.asked.append(("shutdown", {}))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    stand_in = Ray()
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    return stand_in


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    serve.prepare.cache_clear()
    yield
    serve.prepare.cache_clear()


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a program that was started as `program.sh` starts it, with a word of its own."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    monkeypatch.setattr(sys, "argv", ["app.py", f"--config-path={path}", "--log-dir=/logs", "--own", "word"])
    return path


@pytest.mark.usefixtures("started")
def test_the_configuration_is_read_by_keys_and_by_attributes() -> None:
    config = serve.task_config
    assert config is serve.prepare() is serve.load_args()
    assert config.serve.model_args.vllm_model["model-tag"] == config["serve"]["model_args"]["vllm_model"]["model-tag"]
    assert (config.log_dir, config.get("nothing", 5), "serve" in config) == ("/logs", 5, True)
    with pytest.raises(AttributeError, match=r"no 'sreve' in the configuration; it has: experiment, serve, log_dir"):
        _ = config.sreve


@pytest.mark.usefixtures("started")
def test_the_configuration_travels_to_tasks() -> None:
    config = serve.task_config
    config.extra = 1
    assert pickle.loads(pickle.dumps(config)) == config
    assert isinstance(pickle.loads(pickle.dumps(config)).serve.model_args, Config)


def test_tasks_on_other_hosts_find_it_by_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.setattr(sys, "argv", ["default_worker.py", "--logs-dir=/x", "--conf"])
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config.yaml"))
    monkeypatch.setenv(LOGS_VARIABLE, "/its/logs")
    assert (serve.task_config.experiment.exp_name, serve.task_config.log_dir) == ("app", "/its/logs")


def test_without_a_configuration_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    with pytest.raises(RuntimeError, match="--config-path FILE"):
        serve.prepare()


@pytest.mark.usefixtures("started", "ray")
def test_options_of_the_configuration_win_over_those_of_the_program() -> None:
    def anything() -> None: ...

    _, options = serve.remote(name="vllm_model", num_gpus=1, num_cpus=4)(anything)
    assert options == {"name": "vllm_model", "num_gpus": 2, "num_cpus": 4, "max_retries": 0}


@pytest.mark.usefixtures("started", "ray")
def test_without_a_name_the_functions_own_is_looked_up() -> None:
    def vllm_model() -> None: ...

    class Unknown: ...

    assert serve.remote(vllm_model)[1] == {"num_gpus": 2, "max_retries": 0}
    assert serve.remote()(Unknown)[1] is None


def test_a_list_form_has_its_options_under_experiment() -> None:
    config = Config(serve=[{"serve_id": "m"}], experiment={"deploy": {"models": {"m": {"num_gpus": 1}}}})
    assert configured(config, "m") == {"num_gpus": 1}
    assert configured(Config(), "m") == {}
    assert configured(Config(serve={"deploy": {"models": {"m": None}}}), "m") == {}


def test_run_joins_the_cluster_once_and_returns_what_tasks_return(ray: Ray) -> None:
    assert serve.run("a") == "got a"
    assert serve.run("a", "b") == ["got a", "got b"]
    serve.stop()
    assert ray.asked == [("init", {"ignore_reinit_error": True}), ("shutdown", {})]


@pytest.mark.usefixtures("started")
def test_the_calls_of_flagscales_published_programs_work(ray: Ray) -> None:
    """Its first `run_vllm.py` (December 2024) and what followed it (`load_args`), call by call."""

    def vllm_model(args: Any) -> Any:
        return [args["serve"]["model_args"]["vllm_model"][key] for key in ("model-tag", "action-args")], args.log_dir

    serve.init(log_to_driver=True, logging_config="TEXT")
    config = serve.TaskConfig.get()
    task, options = serve.remote(name="vllm_model")(vllm_model)
    assert task(config) == (["/m", ["a"]], "/logs")
    assert options["num_gpus"] == 2
    assert ray.asked == [("init", {"ignore_reinit_error": True, "log_to_driver": True, "logging_config": "TEXT"})]
    serve.load_args()
    assert serve.task_config is config
    assert serve.task_config.get("serve", Config()).deploy.models.get("vllm_model", {})["num_gpus"] == 2
    assert serve.task_config.experiment.get("task", {}).get("inference_engine", None) is None


def test_init_takes_the_settings_of_ray(ray: Ray) -> None:
    serve.init(namespace="mine")
    assert ray.asked == [("init", {"ignore_reinit_error": True, "namespace": "mine"})]


def test_it_needs_nothing_that_hosts_do_not_have_and_python_3_8() -> None:
    allowed = {"argparse", "functools", "os", "sys", "threading", "typing", "yaml", "ray", "flagscale_deploy"}
    for path in (Path(serve.__file__).parent).glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path
            assert all(not name.startswith("flagscale_deploy.") or ".serve" in name for name in names), path
