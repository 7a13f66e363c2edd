"""What a restart policy changes in a plan: the servers' scripts, and nothing where there is none."""

from __future__ import annotations

import shlex
from dataclasses import replace

from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.remote.supervisor import options
from tests.unit.plan.given import host, inventory, model, planned, spec

ON = RestartSpec(policy="on-failure")
BOOT = RestartSpec(boot=True)
LIMIT = "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"


def asked(made: Plan, host: str, script: str) -> list[str]:
    """Return the words that a script passes to the supervisor."""
    text = made.scripts[host][script]
    line = text[text.index('exec python3 "$state/supervisor" supervise') :].replace("\\\n", " ")
    return shlex.split(line)[4:]


def test_without_a_policy_scripts_are_as_they_are() -> None:
    made = planned(inventory("gpu01", "gpu02"), spec(model(tp=16)))
    assert "supervise" not in str(made.scripts)
    assert "exec vllm serve" in made.scripts["gpu01"]["vllm_serve_qwen_0.sh"]
    assert not any("boot.sh" in scripts for scripts in made.scripts.values())


def test_engines_and_routers_are_supervised_with_what_was_asked_for() -> None:
    wish = RestartSpec("on-failure", 7, 2.0, 3.0, 90.0, 300.0)
    made = planned(inventory("gpu01", "gpu02"), spec(model(tp=1, replicas=2), restart=wish))
    for server in made.servers:
        words = options.parse(asked(made, server.driver, server.script))
        assert (words.name, words.script, words.run) == (server.name, server.script, made.run_id)
        assert (words.max, words.first, words.factor, words.ceiling, words.reset_after) == (7, 2, 3, 90, 300)
        assert words.health == f"{server.local_url}/health"
        assert words.command == list(server.argv)
        assert words.router == ("qwen" if server.name == "qwen/router" else "")
        assert words.ray_gpus is None
        engine = server in made.instances
        assert (words.hang, words.interval, words.model) == ((600, 60, "/models/qwen") if engine else (0, 0, ""))
    assert len(made.servers) == 3


def test_hangs_may_be_left_alone() -> None:
    made = planned(inventory("gpu01"), spec(model(tp=1), restart=replace(ON, hang=0.0)))
    assert options.parse(asked(made, "gpu01", "vllm_serve_qwen_0.sh")).hang == 0
    assert LIMIT not in made.instances[0].env


def test_vllm_s_own_limit_of_a_step_is_longer_than_ours_unless_the_user_sets_it() -> None:
    hosts = inventory("gpu01")
    assert planned(hosts, spec(model(tp=1), restart=ON)).instances[0].env[LIMIT] == "1200"
    assert LIMIT not in planned(hosts, spec(model(tp=1))).instances[0].env
    own = spec(model(tp=1), restart=ON, env={LIMIT: "90"})
    assert planned(hosts, own).instances[0].env[LIMIT] == "90"


def test_an_instance_on_ray_waits_for_all_of_its_gpus_wherever_its_driver_is() -> None:
    """Its driver asks Ray itself, and needs the script for that: no operator may be there."""
    hosts = inventory("gpu01", "gpu02", "gpu03")
    elsewhere = spec(model(tp=16, hosts="gpu02,gpu03"), restart=ON)
    made = planned(hosts, elsewhere)
    (instance,) = made.instances
    assert instance.driver == "gpu02"
    words = options.parse(asked(made, "gpu02", instance.script))
    assert (words.ray_gpus, words.ray_seconds) == (16, elsewhere.timeouts.ray)
    assert set(made.scripts["gpu02"]) == {"ray_worker.sh", "ray_nodes.sh", "warm.sh", instance.script}
    assert set(made.scripts["gpu03"]) == {"ray_worker.sh", "warm.sh"}
    step_scripts = {(step.host, step.script) for stage in made.stages for step in stage.steps}
    assert ("gpu02", "ray_nodes.sh") not in step_scripts, "`run` counts on the head"


def test_ray_nodes_are_supervised_and_run_the_script_anew_each_time() -> None:
    made = planned(inventory("gpu01", "gpu02"), spec(model(tp=16), restart=replace(ON, maximum=7, notify="mail me")))
    for place, script, name in (("gpu01", "ray_head.sh", "ray-head"), ("gpu02", "ray_worker.sh", "ray-worker")):
        text = made.scripts[place][script]
        begin = text.index('exec python3 "$state/supervisor" ray_node')
        line = text[begin : text.index("\nfi", begin)].replace("\\\n", " ")
        words = options.parse(shlex.split(line)[4:])
        assert (words.name, words.script, words.max, words.ray_gpus, words.notify) == (name, script, 7, None, True)
        assert words.command == ["bash", "${BASH_SOURCE[0]}", "start"]
        head = (made.ray.address, "gpu01") if name == "ray-worker" else ("", "")
        assert (words.ray_head, words.ray_head_host) == head
        assert "mail me" in made.scripts[place]["notify.sh"]
        assert "mail me" not in text, "a list of processes would show it"
    assert "notify" not in str(planned(inventory("gpu01", "gpu02"), spec(model(tp=16), restart=ON)).scripts)


def test_hosts_that_have_a_part_have_a_script_for_a_reboot() -> None:
    made = planned(inventory("gpu01", "gpu02", "gpu03"), spec(model(tp=16), ray="auto", restart=BOOT))
    assert {name for name, scripts in made.scripts.items() if "boot.sh" in scripts} == {"gpu01", "gpu02", "gpu03"}
    alone = planned(inventory("gpu01", "gpu02"), spec(model(tp=1), ray="off", restart=BOOT))
    assert {name for name, scripts in alone.scripts.items() if "boot.sh" in scripts} == {"gpu01"}
    assert "supervise" not in alone.scripts["gpu01"]["vllm_serve_qwen_0.sh"]


def test_an_instance_over_ray_that_is_supervised_waits_for_ray_itself_after_a_reboot() -> None:
    def steps(restart: RestartSpec) -> list[str]:
        made = planned(inventory("gpu01", "gpu02"), spec(model(tp=16), restart=restart))
        lines = made.scripts["gpu01"]["boot.sh"].splitlines()
        return [" ".join(line.split()[:4]) for line in lines if line.startswith(("again ", "start "))]

    serve = "start vllm_serve_qwen_0.sh engine"
    assert steps(BOOT) == ["again ray_head.sh ray-head 180", "again ray_nodes.sh ray-nodes 180", f"{serve} 60"]
    assert steps(replace(ON, boot=True)) == ["again ray_head.sh ray-head 1800", f"{serve} 1800"]


def test_our_own_programs_run_under_the_host_s_python_for_them() -> None:
    made = planned(inventory(host("gpu01", python="/opt/python 3/bin/python3.11")), spec(model(tp=1), restart=ON))
    assert (
        """exec '/opt/python 3/bin/python3.11' "$state/supervisor" """ in made.scripts["gpu01"]["vllm_serve_qwen_0.sh"]
    )


def test_another_policy_is_another_deployment() -> None:
    hosts = inventory("gpu01")
    assert planned(hosts, spec(model(tp=1))).digest != planned(hosts, spec(model(tp=1), restart=ON)).digest
