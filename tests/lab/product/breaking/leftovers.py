"""What others, and what crashed, left on a host."""

from __future__ import annotations

import yaml

from flagscale_deploy.deploy.lock import lock
from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.transport.fleet import Fleet
from tests.lab import Gpu, GpuProcess
from tests.lab.product import cron
from tests.lab.product.breaking.devices import equip
from tests.lab.product.breaking.stage import MODEL, NAME, Stage, caught_by

LOST = "exec env FLAGSCALE_DEPLOY_RUN=lost/20260101-000000-abcdef sleep 3600"


@caught_by("other-deployments", "flagscale-deploy status -i ", state="warning", round="left there", at="node2")
def another_deployment_runs_there(stage: Stage) -> None:
    run_another(stage, gpus=0)


@caught_by("gpu-busy", "flagscale-deploy stop -i ", round="GPUs, taken", at="node2", exits=7)
def another_deployment_has_its_gpu(stage: Stage) -> None:
    run_another(stage, gpus=1)


@caught_by("gpu-busy", "flagscale-deploy cleanup", round="GPUs, taken", at="node3", exits=7)
def a_process_of_a_crashed_run_has_its_gpu(stage: Stage) -> None:
    pid = stage.start(LOST)
    equip(stage, Gpu(used_mib=40000), processes=(GpuProcess(0, pid, 40000, "python3"),))


@caught_by("lock", "flagscale-deploy unlock -i", state="warning", round="left there", at="node4")
def somebody_is_at_work_on_it(stage: Stage) -> None:
    fleet = stage.undo.enter_context(Fleet(load_inventory(stage.operator.inventory).hosts))
    stage.undo.enter_context(lock(fleet, stage.host.name, NAME, "run"))


@caught_by("crashed-runs", "flagscale-deploy status -i", state="warning", round="left there", at="node3")
def a_process_is_left_of_a_run_that_no_record_knows(stage: Stage) -> None:
    stage.start(LOST)


@caught_by("foreign-ray", "it may stay", state="warning", round="left there", at="node4")
def somebodys_ray_runs_there(stage: Stage) -> None:
    stage.start("exec -a /opt/ray/core/src/ray/raylet/raylet python3 -c 'import time; time.sleep(3600)'")


@caught_by("boot", "loginctl enable-linger root", state="warning", round="GPUs, taken", at="node4")
def nothing_starts_it_after_a_reboot(stage: Stage) -> None:
    stage.deploy(restart={"boot": True})
    for host in stage.lab.hosts:
        if host is not stage.host:
            cron.install(host)
            stage.undo.callback(cron.remove, host)


def run_another(stage: Stage, gpus: int) -> None:
    """Run a deployment of the stand-in with so many GPUs."""
    content = {
        "experiment": {"exp_name": "other"},
        "model_args": {"small": {"model-tag": MODEL, "port": 7950}},
        "deploy": {"ray": "off", "models": {"small": {"num_gpus": gpus}}, "timeouts": {"ready": 20, "stop": 2}},
    }
    config = stage.directory / "other.yaml"
    config.write_text(yaml.safe_dump(content))
    operator, here = stage.operator, ("--limit", stage.host.name)
    stage.undo.callback(operator, "cleanup", "--name", "other", *here)
    operator("run", "-c", config, *here)
