"""The commands of README and docs that need hosts, typed as they stand there, with the files shown, on two real hosts.

The hosts are what the pages say of gpu01 and gpu02: eight GPUs (those of a stand-in for nvidia-smi), an environment
in /opt/vllm with real Ray and a stand-in for vLLM, reached by the names that `~/.ssh/config` knows.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import REPOSITORY, host_commands
from tests.docs.workplace import Workplace
from tests.environments.build import mounts
from tests.lab import Lab
from tests.lab.product import stand_in as stand_ins

pytestmark = [pytest.mark.lab, pytest.mark.e2e, pytest.mark.timeout(900)]

DEPLOYMENT = "qwen2.5-72b"
MODEL_PATH = "/opt/models/Qwen2.5-72B-Instruct"
MODEL = {
    "config.json": json.dumps(
        {
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16",
            "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
            "max_position_embeddings": 32768, "vocab_size": 152064,
        }
    ),
    "tokenizer.json": "{}",
    "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}),
}  # fmt: skip
"""What the checks read of a model of that size; its numbers are the model's own."""
WEIGHTS = """
import json, sys
size = 135 << 30
header = json.dumps({"weight": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
with open(sys.argv[1], "wb") as file:
    file.write(len(header).to_bytes(8, "little") + header)
    file.truncate(8 + len(header) + size)
"""
"""Writes weights as large as its own: a sparse file, whole by its header."""
IDLE = {
    "vllm:num_requests_running": 0, "vllm:num_requests_waiting": 0, "vllm:kv_cache_usage_perc": 0.0,
    "vllm:generation_tokens_total": 1,
}  # fmt: skip
SMALL = """
model_args: {vllm_model: {model-tag: lab/tiny, port: 4568}}
deploy: {ray: off}
"""


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], node_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """gpu01 and gpu02 of the pages."""
    stand_in = stand_ins.build(tmp_path_factory.mktemp("stand-in"))
    lab = make_lab(hosts=2, gpus=8, mounts=[*mounts(node_env), stand_in.command])
    for host in lab.hosts:
        host.run("mount -t tmpfs tmpfs /opt && mkdir -p /opt/vllm/bin")
        activate = f". {node_env}/bin/activate\nPATH={stand_in.command}:$PATH\n"
        activate += f"export STAND_IN_METRICS='{json.dumps(IDLE)}'\n"
        host.run("cat > /opt/vllm/bin/activate", stdin=activate)
        for name, text in MODEL.items():
            host.run(f"mkdir -p {MODEL_PATH} && cat > {MODEL_PATH}/{name}", stdin=text)
        host.run(["python3", "-c", WEIGHTS, f"{MODEL_PATH}/model.safetensors"])
    return lab


@pytest.fixture(scope="module")
def work(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Provide an operator whose `ssh gpu01` works."""
    work = Workplace(tmp_path_factory.mktemp("work"))
    names = [f"Host gpu0{at}\n  HostName {host.address}" for at, host in enumerate(lab.hosts, 1)]
    everywhere = f"Host *\n  User root\n  IdentityFile {lab.identity_file}\n  UserKnownHostsFile {lab.known_hosts}"
    work.write({"home/.ssh/config": "\n".join([*names, everywhere])})
    return work


def test_the_commands_do_and_print_what_the_pages_show(lab: Lab, work: Workplace) -> None:
    processes = []
    for line, commands in host_commands().items():
        printed = work.type_until_line(line) if line.endswith(" -f") else work.type(line)
        shown = as_in_the_pages(lab, printed)
        for command in commands:
            assert command.prints(shown), f"$ {line}\n{shown}\n{command.page} shows\n{command.output}"
        if " run " in line:
            processes = lab.processes(DEPLOYMENT)
            paste_curl(printed, work)
            assert "runs already with this very configuration" in work.type(line)
    assert len(processes) > 2
    assert lab.leftovers(DEPLOYMENT, processes) == []
    assert lab.leftovers("smoke-1") == []
    check_what_is_on_the_operator_s_disk(work)


def test_the_job_for_gitlab_smoke_deploys(lab: Lab, work: Workplace) -> None:
    job = yaml.safe_load((REPOSITORY / "examples/ci/gitlab-ci.yml").read_text())["smoke-deploy"]
    work.write({"ci/hosts.yaml": (work.directory / "hosts.yaml").read_text(), "ci/qwen.yaml": SMALL})
    work.type("mkdir -p .venv/bin && ln -s ../../bin/flagscale-deploy .venv/bin/")  # what before_script installs
    name = job["variables"]["DEPLOYMENT"].replace("$CI_JOB_ID", "4711")
    for line in (*job["script"], *job["after_script"]):
        work.type(line, DEPLOYMENT=name)
    suite = ET.parse(work.directory / job["artifacts"]["reports"]["junit"]).getroot()
    assert (suite.get("failures"), suite[0].get("skipped")) == ("0", "0")
    cases = {case.get("name") for case in suite.iter("testcase")}
    assert {"check [gpu01]", "run [gpu01]", "prompt 1", "stop [gpu02]", "clean [gpu02]"} <= cases
    assert list((work.directory / "smoke-artifacts/logs/gpu01").iterdir())
    assert lab.leftovers(name) == []


def as_in_the_pages(lab: Lab, printed: str) -> str:
    """With the pages' addresses in the place of the lab's."""
    for at, host in enumerate(lab.hosts, 1):
        printed = printed.replace(host.address, f"10.0.0.1{at}")
    return printed


def paste_curl(printed: str, work: Workplace) -> None:
    pasted = re.search(r"^curl (?:.*\\\n)*.*$", printed, re.MULTILINE)
    assert pasted is not None, printed
    assert "you said: Introduce Bruce Lee in details." in work.type(pasted[0])


def check_what_is_on_the_operator_s_disk(work: Workplace) -> None:
    """Return what the pages say that `-o`, `run` and `smoke` write."""
    (run,) = (work.directory / "outputs" / DEPLOYMENT / "runs").iterdir()
    assert {path.name for path in run.iterdir()} == {"plan.json", "events.jsonl", "report.json", "scripts"}
    assert run.stat().st_mode & 0o777 == 0o700
    written = sorted(path.name for path in (work.directory / "scripts").rglob("*.sh"))
    ray = ["ray_head.sh", "ray_nodes.sh", "ray_worker.sh"]
    assert written == [*ray, "vllm_serve_vllm_model_0.sh", "warm.sh", "warm.sh"]
    collected = {path.name for path in (work.directory / "logs/gpu02").rglob("*")}
    assert {"ray_worker.log", "raylet.out"} <= collected
    assert ET.parse(work.directory / "smoke.xml").getroot().get("failures") == "0"
