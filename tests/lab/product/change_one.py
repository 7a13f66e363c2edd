"""Change one group of a running deployment, as `update` is to do it: `change_one HOSTS CONFIG GROUP [STEP]`.

It stops for good once STEP was noted in the records: `drain`, `stop`, `start` or `return`.
"""

from __future__ import annotations

import sys
import threading

from flagscale_deploy.api.planning import load_sources, observe_hosts
from flagscale_deploy.api.request import Options, PlanOptions, load_request
from flagscale_deploy.deploy.bring_up import Run
from flagscale_deploy.deploy.group_change import STAGE, STEPS, begin, change_group
from flagscale_deploy.deploy.lock import lock
from flagscale_deploy.deploy.probe_hosts import facts_of
from flagscale_deploy.deploy.run_folder import RunFolder, new_run_id
from flagscale_deploy.errors import DeployError
from flagscale_deploy.events import Event
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.secrets import Redactor


def main(hosts: str, config: str, group: str, last: str = "") -> None:
    def say(event: Event) -> None:
        sys.stdout.write(f"{event.stage} {event.state} {event.host} {event.text}\n")
        if event.stage == STAGE and event.state == "running" and event.text.endswith(end):
            sys.stdout.write(f"waiting at {last}\n")
            sys.stdout.flush()
            threading.Event().wait()

    end = next((text for step, text in STEPS.items() if step == last), "nothing of that kind")

    request, options = load_request(Options(inventory=hosts, config=config)), PlanOptions()
    spec, head, change_id, redactor = request.serve, request.inventory.head.name, new_run_id(), Redactor()
    with request.fleet() as fleet, lock(fleet, head, spec.name, "update"):
        change = begin(fleet, spec.name, head, change_id, say)
        facts = facts_of(observe_hosts(request, fleet, say))
        made = plan(Inputs(request.inventory, spec, facts, change.run_id, *load_sources(request, options)))
        folder = RunFolder.make(spec.exp_dir, change_id, redactor.redact)
        change_group(change, Run(made, spec, fleet, folder, redactor, say, request.secret_hash), facts, group)
        folder.close()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except DeployError as error:
        sys.exit(str(error))
