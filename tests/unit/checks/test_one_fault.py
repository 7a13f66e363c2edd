"""One fault on one of four hosts: exactly one check complains, of that host, with that remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import paramiko
import pytest
from paramiko.ssh_exception import NoValidConnectionsError

from flagscale_deploy.checks.registry import NAMES, judge
from flagscale_deploy.checks.types import Parsed, Verdict
from flagscale_deploy.config.gate import GateSpec
from flagscale_deploy.config.restart import RestartSpec
from flagscale_deploy.config.spec import PoolSpec, ServeSpec
from flagscale_deploy.errors import (
    ConnectError,
    HostError,
    HostKeyError,
    NoReplyError,
    RemoteError,
    TcpError,
    UnreachableError,
)
from flagscale_deploy.facts.model import (
    ForeignRay,
    GpuProcess,
    HeldLock,
    Interface,
    ListeningPort,
    ModelFiles,
    TlsFile,
)
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.secrets import Secret
from flagscale_deploy.transport.ssh_errors import connect_error
from tests.unit.checks.given import (
    ASKED,
    FILES,
    GIB,
    HOSTS,
    MIB,
    NOW,
    PATH,
    SMALL,
    WEIGHTS,
    complaints,
    facts,
    links,
    make_context,
    only,
)
from tests.unit.plan.given import host, inventory, model, spec

HEALTHY = facts("gpu03").gpus
TRAINING = GpuProcess(4711, 40000, "alice", "python train.py", since=NOW - 7500)
WITHOUT_TOKENIZER = dict.fromkeys([name for name in SMALL if not name.startswith(("tokenizer", "vocab"))], "5f2c")
SHARD = "model-00007-of-00037.safetensors"
ONE_LESS = {name: size for name, size in WEIGHTS.items() if "00007" not in name}


def on_gpu(index: int, **changed: Any) -> Mapping[str, Any]:
    return {"gpus": tuple(replace(gpu, **changed) if gpu.index == index else gpu for gpu in HEALTHY)}


def has(files: ModelFiles) -> Mapping[str, Any]:
    return {"models": (files,)}


def connecting(error: Exception) -> HostError:
    """As the transport raises it."""
    try:
        raise connect_error(Host("gpu03", "10.0.0.3"), error) from error
    except HostError as ours:
        return ours


FAULTS: list[tuple[str, str, Mapping[str, Any] | HostError, str, str]] = [
    ("tcp", "failed", connecting(TimeoutError()), "no answer from 10.0.0.3 in time", "is the host up"),
    ("tcp", "failed", connecting(OSError(101, "Network is unreachable")), "Network is unreachable", "try: ssh"),
    (
        "tcp",
        "failed",
        connecting(NoValidConnectionsError({("10.0.0.3", 22): ConnectionRefusedError(111, "Connection refused")})),
        "cannot connect to 10.0.0.3",
        "is sshd running there?",
    ),
    ("tcp", "failed", connecting(paramiko.ChannelException(2, "Connect failed")), "Connect failed", "try: ssh"),
    (
        "tcp",
        "failed",
        TcpError("gpu03", "the name x cannot be resolved", "give its `address`"),
        "resolved",
        "address",
    ),
    ("ssh", "failed", connecting(paramiko.SSHException("Error reading SSH protocol banner")), "banner", "try: ssh"),
    ("ssh", "failed", UnreachableError("gpu03", "the SSH connection was lost", "look at"), "was lost", "look at"),
    (
        "ssh",
        "failed",
        ConnectError("gpu03", "no connection: Too many open files on this machine", "raise its limit"),
        "on this machine",
        "raise its limit",
    ),
    ("host-key", "failed", HostKeyError("gpu03", "its host key is not known", "compare"), "not known", "compare"),
    ("login", "failed", connecting(paramiko.AuthenticationException("no")), "cannot log in", "ssh-copy-id"),
    (
        "clean-shell",
        "failed",
        NoReplyError("gpu03", "probe: the host program ended without a reply"),
        "without a reply",
        "",
    ),
    ("clean-shell", "warning", {"noise": "Welcome to gpu03!\nhave fun\n"}, "Welcome to gpu03!", "~/.bashrc"),
    (
        "python",
        "failed",
        RemoteError("gpu03", "no usable Python", "install python3"),
        "no usable Python",
        "install",
    ),
    ("python", "failed", {"probe_python": "3.6.8"}, "Python 3.6.8", "`python:` for gpu03"),
    ("writable", "failed", {"unwritable": ("/tmp",)}, "ubuntu cannot write to /tmp", "sudo chmod 1777 /tmp"),
    ("writable", "failed", {"unwritable": ("/home/ubuntu",)}, "/home/ubuntu", "ls -ld /home/ubuntu"),
    ("processes-visible", "warning", {"sees_everyone": False}, "hidepid", "sudo mount -o remount,hidepid=0 /proc"),
    ("clock", "warning", {"clock": NOW + 61}, "61 s ahead of the other hosts", "sudo timedatectl set-ntp true"),
    (
        "resolver",
        "warning",
        {"resolver_seconds": 2.0},
        "within 2.0 s",
        'env: {RES_OPTIONS: "timeout:1 attempts:1"} for gpu03',
    ),
    (
        "environment",
        "failed",
        {"environment_error": "no such file", "ray": None, "vllm": None, "python": None, "torch": None},
        "does not start: no such file",
        "venv or before_start",
    ),
    ("ray-installed", "failed", {"ray": None}, "Ray is not installed", "pip install 'ray[default]'"),
    ("vllm-installed", "failed", {"vllm": None}, "vLLM is not installed", "pip install vllm"),
    ("same-python", "failed", {"python": "3.11.8"}, "Python 3.11.8, but 3.11.7 on gpu01 and 2 more", "on gpu03"),
    ("same-ray", "failed", {"ray": "2.60.1"}, "Ray 2.60.1, but 2.60.0", "pip install 'ray[default]==2.60.0'"),
    ("same-vllm", "failed", {"vllm": "0.31.0"}, "vLLM 0.31.0", "pip install vllm==0.32.0"),
    ("same-torch", "failed", {"torch": "2.10.0"}, "PyTorch 2.10.0", "pip install torch==2.11.0"),
    (
        "same-driver",
        "warning",
        {"driver_version": "570.86.15"},
        "driver 570.86.15",
        "apt-get install nvidia-driver-580",
    ),
    (
        "gpu-driver",
        "failed",
        {"gpus": (), "driver_version": None, "gpu_error": "couldn't communicate with the driver"},
        "nvidia-smi fails: couldn't communicate",
        "modprobe nvidia",
    ),
    (
        "gpu-alike",
        "failed",
        {"gpus": tuple(replace(gpu, name="NVIDIA A100-SXM4-80GB") for gpu in HEALTHY)},
        "NVIDIA A100-SXM4-80GB of 80 GiB for qwen/0",
        "hosts of deploy.models.qwen",
    ),
    ("gpu-alike", "failed", on_gpu(3, memory_total_mib=95830), "H100 80GB HBM3 of 94 GiB", "equal GPUs"),
    (
        "gpu-busy",
        "failed",
        on_gpu(2, memory_used_mib=40000, processes=(TRAINING,)),
        "GPU 2: pid 4711 of alice python train.py (40000 MiB, for 2h05m)",
        "ssh -t 10.0.0.3 sudo kill 4711",
    ),
    ("gpu-busy", "failed", on_gpu(2, memory_used_mib=40000), "GPU 2: 40000 MiB in use", "fuser -v /dev/nvidia*"),
    (
        "gpu-busy",
        "failed",
        on_gpu(2, memory_used_mib=40000, processes=(replace(TRAINING, run="lost/20260101-000000-abcdef"),)),
        "GPU 2: ",
        "flagscale-deploy cleanup",
    ),
    (
        "gpu-ecc",
        "failed",
        on_gpu(5, ecc_uncorrected=2),
        "GPU 5: 2 uncorrected ECC errors",
        "nvidia-smi --gpu-reset -i 5",
    ),
    (
        "gpu-persistence",
        "warning",
        on_gpu(5, persistence=False),
        "off for GPU 5",
        "ssh -t 10.0.0.3 sudo nvidia-smi -pm 1",
    ),
    ("gpu-mig", "failed", on_gpu(5, mig=True), "MIG mode is on for GPU 5", "nvidia-smi -mig 0 -i 5"),
    ("memory", "failed", {"memory_available": 20 * GIB}, "20.0 GiB of 1.0 TiB available", "--sort=-rss"),
    ("memory", "failed", {"memory_total": 64 * GIB, "memory_available": 7 * GIB}, "7.0 GiB of 64.0 GiB", "--sort=-rss"),
    ("shared-memory", "failed", {"shm_total": 64 * MIB, "shm_free": 64 * MIB}, "64.0 MiB of 64.0 MiB", "remount,size="),
    ("shared-memory", "failed", {"shm_free": 3 * MIB}, "3.0 MiB of 512.0 GiB free", "ls -lS /dev/shm"),
    ("open-files", "failed", {"open_files": 4096}, "ulimit -Hn is 4096", "ubuntu - nofile 65536"),
    ("disk", "failed", {"disk_free": 100 * MIB}, "100.0 MiB free in /home/ubuntu", "du -xh"),
    ("disk", "failed", {"disk_free": 100 * MIB, "tmp_free": 100 * MIB}, "100.0 MiB free in /home/ubuntu", "du -xh"),
    ("tmp", "warning", {"tmp_free": 4 * GIB}, "4.0 GiB free in /tmp", "du -xh --max-depth=1 /tmp"),
    ("tmp", "failed", {"tmp_free": 4 * MIB}, "4.0 MiB free in /tmp", "du -xh --max-depth=1 /tmp"),
    ("hostname", "warning", {"hostname_addresses": ("127.0.1.1",)}, "gpu03 resolves to 127.0.1.1", "10.0.0.3 gpu03"),
    ("hostname", "warning", {"hostname_addresses": ()}, "gpu03 resolves to nothing", "/etc/hosts of gpu03"),
    (
        "mtu",
        "failed",
        {"interfaces": (Interface("eth0", ("10.0.0.3",), 9000),)},
        "MTU 9000 on eth0",
        "sudo ip link set eth0 mtu 1500",
    ),
    ("infiniband", "failed", {"infiniband": ("mlx5_0",)}, "InfiniBand: mlx5_0", "NCCL_IB_DISABLE"),
    (
        "model-path",
        "failed",
        has(ModelFiles(PATH, "no such file or directory")),
        "/models/qwen: no such file",
        "flagscale-deploy push gpu01:/models/qwen /models/qwen -i hosts.yaml --limit gpu03",
    ),
    (
        "model-same",
        "failed",
        has(replace(FILES, hashes={**FILES.hashes, "config.json": "ffff"})),
        "config.json differs",
        "rsync -a --delete",
    ),
    (
        "model-same",
        "failed",
        has(replace(FILES, weights={**WEIGHTS, "model-00007-of-00037.safetensors": 17})),
        "model-00007-of-00037.safetensors differs (17 bytes for 3930000000 bytes)",
        "rsync",
    ),
    (
        "model-same",
        "failed",
        has(replace(FILES, hashes={**FILES.hashes, "modeling_x.py": "1"})),
        "is not on gpu01",
        "rsync",
    ),
    (
        "model-weights",
        "failed",
        has(replace(FILES, weights=ONE_LESS)),
        "model-00007-of-00037.safetensors is missing",
        "flagscale-deploy push gpu01:",
    ),
    (
        "model-weights",
        "failed",
        has(replace(FILES, weights={**WEIGHTS, "model-00007-of-00037.safetensors": 0})),
        "model-00007-of-00037.safetensors is empty",
        "flagscale-deploy push gpu01:/models/qwen /models/qwen -i ",
    ),
    (
        "model-weights",
        "failed",
        has(replace(FILES, weights={}, indexed=())),
        "no weight files",
        "flagscale-deploy push gpu01:",
    ),
    (
        "model-weights",
        "failed",
        has(
            replace(
                FILES, weights={"x-00001-of-00002.bin": 9}, indexed=("x-00001-of-00002.bin", "x-00002-of-00002.bin")
            )
        ),
        "x-00002-of-00002.bin is missing",
        "flagscale-deploy push gpu01:/models/qwen /models/qwen -i ",
    ),
    (
        "model-weights",
        "failed",
        has(replace(FILES, weights={**WEIGHTS, SHARD: 4096}, torn={SHARD: "is cut off: 4096 of 3930000000 bytes"})),
        f"{SHARD} is cut off: 4096 of 3930000000 bytes",
        "flagscale-deploy push gpu01:/models/qwen /models/qwen -i ",
    ),
    (
        "model-tokenizer",
        "failed",
        has(replace(FILES, hashes=WITHOUT_TOKENIZER)),
        "has no tokenizer",
        "flagscale-deploy push gpu01:/models/qwen /models/qwen -i ",
    ),
    (
        "model-tokenizer",
        "warning",
        has(replace(FILES, chat_template=False)),
        "has no chat template",
        "flagscale-deploy push gpu01:/models/qwen /models/qwen -i ",
    ),
    (
        "other-deployments",
        "warning",
        {"deployments": ({"deployment": "llama", "boot_id": "boot-gpu03"},)},
        "llama runs on this host",
        "it may stay; whose it is: flagscale-deploy status -i hosts.yaml --name llama",
    ),
    (
        "lock",
        "warning",
        {"locks": (HeldLock("qwen", 99, {"who": "bob@desk", "what": "run"}),)},
        "bob@desk works on it with run (pid 99)",
        "flagscale-deploy unlock -i hosts.yaml --name qwen",
    ),
    (
        "crashed-runs",
        "warning",
        {"runs": {"qwen/20261031T090000Z-aaaaaa": 14}},
        "14 processes of qwen/20261031T090000Z",
        "flagscale-deploy cleanup -i hosts.yaml --name qwen",
    ),
    (
        "foreign-ray",
        "warning",
        {"foreign_ray": (ForeignRay(77, "alice", "/opt/ray/raylet --x"),)},
        "raylet (pid 77 of alice)",
        "ssh 10.0.0.3 ps -fp 77",
    ),
]


@pytest.mark.parametrize(
    ("check", "state", "fault", "problem", "remedy"), FAULTS, ids=[f"{case[0]}-{at}" for at, case in enumerate(FAULTS)]
)
def test_one_check_complains_of_that_host(
    check: str, state: str, fault: Mapping[str, Any] | HostError, problem: str, remedy: str
) -> None:
    verdict = only(make_context({"gpu03": fault}))
    assert (verdict.check, verdict.state, verdict.host) == (check, state, "gpu03")
    assert problem in verdict.found
    assert remedy in verdict.remedy
    assert verdict.expected


@pytest.mark.parametrize("fault", [fault for _, _, fault, _, _ in FAULTS if isinstance(fault, Mapping)])
def test_no_warning_proposes_to_end_what_is_somebody_elses(fault: Mapping[str, Any]) -> None:
    small = spec(model(tp=8, engine_args={"max-model-len": 32768}), ray="on")
    for serve_spec in (ASKED, small):
        for verdict in complaints(make_context({"gpu03": fault}, serve_spec=serve_spec)):
            words = verdict.remedy.split()
            if verdict.state == "warning":
                assert "kill" not in words
                assert "stop" not in words
                assert "cleanup" not in words or words[-2:] == ["--name", "qwen"]


def test_inventory_counts_more_gpus_than_there_are() -> None:
    hosts = inventory("gpu01", "gpu02", host("gpu03", gpus=8), "gpu04")
    verdict = only(make_context({"gpu03": {"gpus": HEALTHY[:7]}}, hosts=hosts))
    assert (verdict.check, verdict.host) == ("gpu-count", "gpu03")
    assert (verdict.found, verdict.expected) == ("the inventory says 8 GPUs, the host has 7", "8 GPUs")
    assert "ssh 10.0.0.3 nvidia-smi -L" in verdict.remedy


def test_a_busy_gpu_that_nobody_needs_is_a_warning() -> None:
    serve_spec = spec(model(tp=8, engine_args={"max-model-len": 32768}), ray="on")
    verdict = only(
        make_context({"gpu03": on_gpu(2, memory_used_mib=40000, processes=(TRAINING,))}, serve_spec=serve_spec)
    )
    assert (verdict.check, verdict.state, verdict.host) == ("gpu-busy", "warning", "gpu03")


def test_gpus_of_another_deployment_are_told_where_they_are_lacking() -> None:
    record = {"deployment": "llama", "boot_id": "boot-gpu03", "gpus": [0, 1]}
    verdicts = {verdict.check: verdict for verdict in _complaints({"gpu03": {"deployments": (record,)}})}
    assert verdicts["gpu-busy"].state == "failed"
    assert "flagscale-deploy stop -i hosts.yaml --name llama" in verdicts["gpu-busy"].remedy


def test_more_gpus_asked_for_than_there_are() -> None:
    verdict = only(make_context(serve_spec=spec(model(tp=64, engine_args={"max-model-len": 32768}))))
    assert (verdict.check, verdict.state) == ("placement", "failed")
    assert "replica 0 needs 64 GPUs" in verdict.found


def test_a_node_ip_that_the_host_does_not_have() -> None:
    hosts = inventory("gpu01", "gpu02", host("gpu03", node_ip="10.9.9.9"), "gpu04")
    tried = tuple(
        replace(link, failure="timed-out", problem="timed out") if link.target == "gpu03" else link for link in links()
    )
    verdict = only(make_context(hosts=hosts, tried=tried))
    assert (verdict.check, verdict.host) == ("node-ip", "gpu03")
    assert verdict.remedy == "correct node_ip in the inventory, or remove it"


@pytest.mark.parametrize(
    ("executor", "state", "address", "why"),
    [
        ("mp", "failed", "10.9.9.9", "the host does not have it"),
        ("mp", "failed", "127.0.0.1", "other hosts cannot reach it"),
        ("ray", "warning", "10.9.9.9", "the host does not have it"),
    ],
)
def test_a_vllm_host_ip_that_the_host_does_not_have(executor: Any, state: str, address: str, why: str) -> None:
    serve_spec = spec(model(tp=32, engine_args={"max-model-len": 32768}), executor=executor)
    hosts = inventory("gpu01", "gpu02", host("gpu03", env={"VLLM_HOST_IP": address}), "gpu04")
    verdict = only(make_context(hosts=hosts, serve_spec=serve_spec))
    assert (verdict.check, verdict.state, verdict.host) == ("node-ip", state, "gpu03")
    assert verdict.found == f"VLLM_HOST_IP is {address}: {why}"
    assert "remove VLLM_HOST_IP" in verdict.remedy


def test_a_vllm_host_ip_on_another_interface_of_the_host() -> None:
    serve_spec = spec(model(tp=32, engine_args={"max-model-len": 32768}), executor="mp")
    hosts = inventory("gpu01", "gpu02", host("gpu03", env={"VLLM_HOST_IP": "10.0.0.3"}), "gpu04")
    assert complaints(make_context(hosts=hosts, serve_spec=serve_spec)) == []
    alone = spec(model(tp=8, engine_args={"max-model-len": 32768}), ray="off", env={"VLLM_HOST_IP": "10.9.9.9"})
    assert complaints(make_context(serve_spec=alone)) == [], "one host needs no address"


def test_a_port_that_somebody_holds() -> None:
    verdict = only(make_context({"gpu01": {"ports": (ListeningPort(8000, "0.0.0.0", 99, "nginx"),)}}))
    assert (verdict.check, verdict.host) == ("ports", "gpu01")
    assert "port 8000 on gpu01, for qwen/0, is in use by nginx (pid 99)" in verdict.found
    assert "ssh 10.0.0.1 ss -ltnp sport = :8000" in verdict.remedy


def test_a_port_that_rays_workers_may_take_first() -> None:
    verdict = only(make_context(serve_spec=spec(model(tp=32, port=12000, engine_args={"max-model-len": 32768}))))
    assert (verdict.check, verdict.state, verdict.host) == ("ports", "warning", "gpu01")
    assert verdict.found == "port 12000 of qwen/0 is in the range of Ray's workers, which start first"
    assert verdict.expected == "a port outside 10002 to 19999"
    alone = spec(model(tp=8, port=12000, engine_args={"max-model-len": 32768}), ray="off")
    assert complaints(make_context(serve_spec=alone)) == []


def test_a_router_that_is_not_installed() -> None:
    serve_spec = spec(model(tp=8, replicas=2, engine_args={"max-model-len": 32768}), ray="on")
    verdict = only(make_context({"gpu01": {"router": None}}, serve_spec=serve_spec))
    assert (verdict.check, verdict.host) == ("router-installed", "gpu01")
    assert "pip install vllm-router" in verdict.remedy


def test_a_gate_whose_head_cannot_run_it() -> None:
    serve_spec = spec(model(tp=32, engine_args={"max-model-len": 32768}), ray="on", gate=GateSpec())
    assert complaints(make_context(serve_spec=serve_spec)) == []
    verdict = only(make_context({"gpu01": {"aiohttp": None}, "gpu02": {"aiohttp": None}}, serve_spec=serve_spec))
    assert (verdict.check, verdict.host) == ("gate-installed", "gpu01")
    assert "pip install aiohttp" in verdict.remedy


def test_a_nixl_that_is_not_installed_where_pools_need_it() -> None:
    serve_spec = spec(
        model(
            tp=8, engine_args={"max-model-len": 32768}, prefill=PoolSpec(hosts="gpu01"), decode=PoolSpec(hosts="gpu02")
        ),
        ray="on",
    )
    verdict = only(make_context({"gpu02": {"nixl": None}, "gpu03": {"nixl": None}}, serve_spec=serve_spec))
    assert (verdict.check, verdict.host) == ("nixl-installed", "gpu02")
    assert "pip install nixl" in verdict.remedy


def test_a_vllm_that_is_too_old_for_ranks_without_ray_is_told_once() -> None:
    """Its parser does not know the flags that this tool adds; those of the user it still has to know."""
    serve_spec = spec(model(tp=32, engine_args={"max-model-len": 32768}), executor="mp")
    old = {name: {"vllm": "0.11.0"} for name in HOSTS}
    unknown = ("nnodes", "node-rank", "master-addr", "master-port")
    parsed = {"qwen/0": Parsed(unknown=unknown, known=("max-model-len",))}
    verdicts = complaints(make_context(old, serve_spec=serve_spec, parsed=parsed))
    assert [(verdict.check, verdict.host) for verdict in verdicts] == [("vllm-version", name) for name in HOSTS]
    assert verdicts[0].found == "vLLM 0.11.0, but qwen/0 needs 0.11.1 or later: --nnodes"
    parsed = {"qwen/0": Parsed(unknown=(*unknown, "max-model-lenn"), known=("max-model-len",))}
    verdicts = complaints(make_context(old, serve_spec=serve_spec, parsed=parsed))
    assert [verdict.check for verdict in verdicts] == ["vllm-version"] * 4 + ["engine-arguments"]


def test_a_ray_without_token_authentication() -> None:
    verdicts = _complaints({name: {"ray": "2.51.2"} for name in HOSTS})
    assert [(verdict.check, verdict.host) for verdict in verdicts] == [("ray-version", name) for name in HOSTS]
    assert verdicts[0].remedy == "on gpu01: pip install -U 'ray[default]'"


def test_an_old_ray_among_new_ones_is_told_once() -> None:
    verdict = only(make_context({"gpu03": {"ray": "2.40.0"}}))
    assert (verdict.check, verdict.host) == ("ray-version", "gpu03")
    assert verdict.remedy == "on gpu03: pip install 'ray[default]==2.60.0'"


def test_a_name_that_is_not_found_because_dns_hangs_is_told_once() -> None:
    verdict = only(make_context({"gpu03": {"resolver_seconds": 1.0, "hostname_addresses": ()}}))
    assert (verdict.check, verdict.host) == ("resolver", "gpu03")


def test_memory_that_can_not_be_locked_for_infiniband() -> None:
    everywhere: dict[str, Any] = {name: {"infiniband": ("mlx5_0",), "locked_memory": -1} for name in HOSTS}
    assert _complaints(everywhere) == []
    everywhere["gpu03"] = {"infiniband": ("mlx5_0",), "locked_memory": 8 * MIB}
    verdict = only(make_context(everywhere))
    assert (verdict.check, verdict.host) == ("locked-memory", "gpu03")
    assert verdict.found == "ulimit -Hl is 8.0 MiB, with InfiniBand"
    assert "ubuntu - memlock unlimited" in verdict.remedy


WITHOUT_GPUS = {"gpus": (), "driver_version": None}


def on_cpu(engine_args: Mapping[str, Any], memory: int, **env: str) -> list[Verdict]:
    """Judge a 135.4 GiB model on the processors of one host with so much memory."""
    serve_spec = spec(model(num_gpus=0, engine_args={"max-model-len": 512, **engine_args}), ray="off", env=env)
    lone = {**WITHOUT_GPUS, "memory_total": 512 * GIB, "memory_available": memory}
    return complaints(make_context({"gpu01": lone}, hosts=inventory("gpu01"), serve_spec=serve_spec))


def test_weights_and_cache_need_memory_where_there_are_no_gpus() -> None:
    verdicts = on_cpu({"tensor-parallel-size": 2}, 22 * GIB, VLLM_CPU_KVCACHE_SPACE="4")
    assert [(verdict.check, verdict.state, verdict.host) for verdict in verdicts] == [("memory", "failed", "gpu01")]
    assert verdicts[0].found == "22.0 GiB of 512.0 GiB available"
    assert verdicts[0].expected == "145.4 GiB: 2 ranks × (1.0 GiB + weights 67.7 GiB + KV cache 4.0 GiB)"
    assert on_cpu({"tensor-parallel-size": 2}, 146 * GIB, VLLM_CPU_KVCACHE_SPACE="4") == []
    verdicts = on_cpu({"kv-cache-memory-bytes": 16 * GIB}, 140 * GIB)
    assert verdicts[0].expected == "152.4 GiB: 1 rank × (1.0 GiB + weights 135.4 GiB + KV cache 16.0 GiB)"


def test_weights_that_gpus_leave_in_memory_need_some_for_each() -> None:
    serve_spec = spec(model(tp=32, engine_args={"max-model-len": 32768, "cpu-offload-gb": 2}))
    verdict = only(
        make_context({"gpu03": {"memory_total": 64 * GIB, "memory_available": 20 * GIB}}, serve_spec=serve_spec)
    )
    assert (verdict.check, verdict.host) == ("memory", "gpu03")
    assert verdict.expected == "24.0 GiB: 8 ranks × (1.0 GiB + cpu-offload-gb 2.0 GiB), and 5 % for Ray"
    assert (
        complaints(
            make_context({"gpu03": {"memory_total": 64 * GIB, "memory_available": 25 * GIB}}, serve_spec=serve_spec)
        )
        == []
    )


def test_more_memory_than_a_host_has_is_not_freed_by_ending_something() -> None:
    serve_spec = spec(model(num_gpus=0, engine_args={"max-model-len": 512}), ray="off")
    lone = {**WITHOUT_GPUS, "memory_total": 64 * GIB, "memory_available": 60 * GIB}
    verdict = only(make_context({"gpu01": lone}, hosts=inventory("gpu01"), serve_spec=serve_spec))
    assert verdict.remedy == "choose a host with more memory"


def test_one_machine_under_two_names() -> None:
    twin = facts("gpu02")
    verdict = only(make_context({"gpu03": {"boot_id": twin.boot_id, "hostname": "gpu02"}}))
    assert (verdict.check, verdict.state, verdict.host) == ("distinct-hosts", "failed", "gpu03")
    assert verdict.found == "it is the same machine as gpu02: the same boot ID and hostname gpu02"
    assert verdict.remedy == "remove one of the names from hosts.yaml, or use --limit 'all,!gpu03'"
    verdict = only(make_context({"gpu03": {"gpus": twin.gpus}}))
    assert (verdict.check, verdict.found) == (
        "distinct-hosts",
        "it is the same machine as gpu02: the same 8 GPUs (GPU-2-0)",
    )


def test_containers_of_one_machine_are_hosts_of_their_own() -> None:
    """They share its boot, and have names and GPUs of their own."""
    assert complaints(make_context({name: {"boot_id": "one"} for name in HOSTS})) == []


def test_flags_that_vllm_does_not_know() -> None:
    parsed = {"qwen/0": Parsed(unknown=("max-model-lenn",), known=("max-model-len", "max-num-seqs"))}
    verdict = only(make_context(parsed=parsed))
    assert (verdict.check, verdict.host) == ("engine-arguments", "gpu01")
    assert verdict.found == "qwen.yaml: model_args.qwen: --max-model-lenn is unknown to the vLLM on this host"
    assert verdict.remedy == "did you mean --max-model-len?"


def test_values_that_vllm_does_not_take_and_a_vllm_that_can_not_be_asked() -> None:
    verdict = only(make_context(parsed={"qwen/0": Parsed(error="argument --dtype: invalid choice: 'x'")}))
    assert (verdict.check, "invalid choice" in verdict.found) == ("engine-arguments", True)
    verdict = only(make_context(parsed={"qwen/0": Parsed(broken="libcuda.so.1 not found")}))
    assert verdict.found == "vLLM can't be imported: libcuda.so.1 not found"


INTERNET = {"interfaces": (Interface("eth0", ("10.0.0.1", "8.8.4.4", "2606:4700::1111", "fe80::1"), 1500),)}


def test_a_server_without_a_key_on_an_address_of_the_internet() -> None:
    verdicts = complaints(make_context({"gpu01": INTERNET}))
    assert [(verdict.check, verdict.host, verdict.state) for verdict in verdicts] == [
        ("open-server", "gpu01", "warning")
    ] * 2
    assert verdicts[0].found == "qwen/0 listens on 8.8.4.4, port 8000, without a key"
    assert "2606:4700::1111" in verdicts[1].found
    kept = [
        spec(model(tp=32, engine_args={"max-model-len": 32768}), secret_env={"VLLM_API_KEY": Secret("sk-x")}),
        spec(model(tp=32, engine_args={"max-model-len": 32768, "host": "127.0.0.1"})),
        spec(model(tp=32, engine_args={"max-model-len": 32768, "host": "10.0.0.1"})),
    ]
    assert [
        complaint
        for serve_spec in kept
        for complaint in complaints(make_context({"gpu01": INTERNET}, serve_spec=serve_spec))
    ] == []
    serve_spec = spec(model(tp=32, engine_args={"max-model-len": 32768, "host": "8.8.4.4"}))
    assert only(make_context({"gpu01": INTERNET}, serve_spec=serve_spec)).host == "gpu01"


def test_behind_a_gate_only_the_gate_is_open_and_that_without_a_key() -> None:
    def gated(gate: GateSpec, **settings: Any) -> ServeSpec:
        flags = {"max-model-len": 32768, "host": "0.0.0.0"}
        return spec(model(tp=32, engine_args=flags), gate=gate, **settings)

    verdicts = complaints(make_context({"gpu01": INTERNET}, serve_spec=gated(GateSpec())))
    assert {(verdict.check, verdict.host, verdict.state) for verdict in verdicts} == {
        ("open-server", "gpu01", "warning")
    }
    assert verdicts[0].found == "the gate listens on 8.8.4.4, port 8080, without a key"
    kept = [
        gated(GateSpec(keys={"alice": Secret("sk-of-alice")})),
        gated(GateSpec(), secret_env={"VLLM_API_KEY": Secret("sk-x")}),
        gated(GateSpec(host="127.0.0.1")),
    ]
    assert [complaints(make_context({"gpu01": INTERNET}, serve_spec=serve_spec)) for serve_spec in kept] == [[], [], []]


@pytest.mark.parametrize(
    ("files", "state", "problem"),
    [
        ({"c.pem": TlsFile("No such file or directory")}, "failed", "ssl-certfile c.pem: No such file or directory"),
        ({"c.pem": TlsFile(mode=0o644, expires=NOW - 1)}, "failed", "ssl-certfile c.pem has expired"),
        ({"k.pem": TlsFile(mode=0o640)}, "warning", "ssl-keyfile k.pem can be read by others (mode 640)"),
    ],
)
def test_files_of_tls(files: Mapping[str, TlsFile], state: str, problem: str) -> None:
    sound = {"c.pem": TlsFile(mode=0o644, expires=NOW + 1), "k.pem": TlsFile(mode=0o600)}
    serve_spec = spec(
        model(tp=32, engine_args={"max-model-len": 32768, "ssl-certfile": "c.pem", "ssl-keyfile": "k.pem"})
    )
    assert complaints(make_context({"gpu01": {"tls_files": sound}}, serve_spec=serve_spec)) == []
    verdict = only(make_context({"gpu01": {"tls_files": {**sound, **files}}}, serve_spec=serve_spec))
    assert (verdict.check, verdict.host, verdict.state, verdict.found) == ("tls-files", "gpu01", state, problem)


def test_a_key_without_a_certificate_is_no_tls() -> None:
    serve_spec = spec(model(tp=32, engine_args={"max-model-len": 32768, "ssl-keyfile": "k.pem"}))
    assert "would serve without TLS" in only(make_context({"gpu01": {}}, serve_spec=serve_spec)).found


def test_a_host_that_would_not_come_back_after_a_reboot_is_a_warning() -> None:
    serve_spec = replace(ASKED, restart=RestartSpec(boot=True))
    there = {name: {"boot": "crontab"} for name in HOSTS}
    assert complaints(make_context(there, serve_spec=serve_spec)) == []
    problem = "the user's systemd does not run without a login (lingering), and there is no crontab"
    verdict = only(make_context({**there, "gpu03": {"boot_problem": problem}}, serve_spec=serve_spec))
    assert (verdict.check, verdict.state, verdict.host, verdict.found) == ("boot", "warning", "gpu03", problem)
    one_host = replace(
        spec(model(tp=8, engine_args={"max-model-len": 32768}), ray="off"), restart=RestartSpec(boot=True)
    )
    assert complaints(make_context({"gpu01": {"boot": "systemd"}}, serve_spec=one_host)) == [], (
        "the others have no part in it"
    )
    assert verdict.remedy == "ssh -t 10.0.0.3 sudo loginctl enable-linger ubuntu; or install cron"


def test_every_check_has_its_fault() -> None:
    """In the table above, in a test below it, or in those of models and links."""
    elsewhere = {"distinct-hosts", "gpu-count", "placement", "node-ip", "ports", "router-installed", "ray-version",
                 "vllm-version", "nixl-installed", "locked-memory", "engine-arguments", "data-network", "bandwidth",
                 "gate-installed", "model-parallel", "model-length", "model-memory", "model-code", "open-server",
                 "tls-files", "router-tls", "model-experts", "all2all-installed", "boot"}  # fmt: skip
    assert {case[0] for case in FAULTS} | elsewhere == set(NAMES)


def _complaints(changed: Mapping[str, Any]) -> list[Verdict]:
    return complaints(make_context(changed, serve_spec=ASKED))


def kinds_of(error: type[HostError]) -> Iterator[type[HostError]]:
    yield error
    for kind in error.__subclasses__():
        yield from kinds_of(kind)


def test_every_error_of_a_host_is_the_finding_of_exactly_one_check() -> None:
    kinds = {*kinds_of(HostError)}
    assert len(kinds) >= 10
    for kind in kinds:
        error = kind.__new__(kind)
        HostError.__init__(error, "gpu03", "what happened", "what to do")
        verdicts = [v for v in judge(make_context({"gpu03": error})) if v.state == "failed" and v.host == "gpu03"]
        assert [verdict.found for verdict in verdicts] == ["what happened"], kind
