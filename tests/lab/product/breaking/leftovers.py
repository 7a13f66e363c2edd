"""What others, and what crashed, left on a host."""

from __future__ import annotations

import yaml

from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.records import lock
from flagscale_deploy.transport.fleet import Fleet
from tests.lab.product.breaking.stage import MODEL, NAME, Stage, caught_by

OTHER = {
    "experiment": {"exp_name": "other"},
    "model_args": {"small": {"model-tag": MODEL, "port": 7950}},
    "deploy": {"ray": "off", "models": {"small": {"num_gpus": 0}}, "timeouts": {"ready": 20, "stop": 2}},
}


@caught_by("other-deployments", "flagscale-deploy stop --name other", state="warning")
def another_deployment_runs_there(stage: Stage) -> None:
    config = stage.directory / "other.yaml"
    config.write_text(yaml.safe_dump(OTHER))
    operator = stage.operator
    stage.undo.callback(operator, "cleanup", "--name", "other", "--limit", stage.host.name)
    operator("run", "-c", config, "--limit", stage.host.name)


@caught_by("lock", "wait for it, or end it there", state="warning")
def somebody_is_at_work_on_it(stage: Stage) -> None:
    fleet = stage.undo.enter_context(Fleet(load_inventory(stage.operator.inventory).hosts))
    stage.undo.enter_context(lock(fleet, stage.host.name, NAME, "run"))


@caught_by("crashed-runs", "flagscale-deploy cleanup -i", state="warning")
def a_process_is_left_of_a_run_that_no_record_knows(stage: Stage) -> None:
    stage.start("exec env FLAGSCALE_DEPLOY_RUN=lost/20260101-000000-abcdef sleep 3600")


@caught_by("foreign-ray", "if nobody needs it", state="warning")
def somebodys_ray_runs_there(stage: Stage) -> None:
    stage.start("exec -a /opt/ray/core/src/ray/raylet/raylet python3 -c 'import time; time.sleep(3600)'")
