"""Whatever a host answers, and whatever a model's files say, checks come to an end."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.checks.registry import NAMES, judge
from flagscale_deploy.checks.types import Link, Parsed
from flagscale_deploy.errors import NoReplyError, RemoteError, TcpError, UnreachableError
from flagscale_deploy.facts.model import (
    Facts,
    ForeignRay,
    Gpu,
    GpuProcess,
    HeldLock,
    Interface,
    ListeningPort,
    ModelFiles,
    TlsFile,
)
from flagscale_deploy.remote.messages.check import ConnectFailure
from tests.unit.checks.given import CONFIG, HOSTS, PATH, make_context
from tests.unit.plan.given import model, spec

TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([
    *CONFIG, "head_dim", "kv_lora_rank", "rope_scaling", "rope_parameters", "text_config", "layer_types", "auto_map",
    "quantization_config", "model_max_length", "n_head", "thinker_config", "original_max_position_embeddings",
])  # fmt: skip
NESTED = st.dictionaries(
    st.sampled_from(["factor", "rope_type", "type", "num_attention_heads", "kv_cache_scheme"]), JSON
)
CONFIGS = st.dictionaries(KEYS, JSON | NESTED | st.integers(-5, 70000), max_size=12)
ADDRESSES = st.lists(st.ip_addresses().map(str), max_size=2).map(tuple)
BYTES = st.integers(-1, 1 << 50)
PROCESSES = st.lists(
    st.builds(GpuProcess, st.integers(0, 9), BYTES, TEXT, TEXT, TEXT, st.none() | st.floats()), max_size=2
)
MODELS = st.builds(
    ModelFiles,
    path=st.just(PATH),
    problem=st.sampled_from(["", "", "permission denied"]),
    config=CONFIGS,
    hashes=st.dictionaries(TEXT | st.just("tokenizer.json"), TEXT, max_size=3),
    weights=st.dictionaries(TEXT | st.just("model.safetensors"), BYTES, max_size=3),
    indexed=st.lists(TEXT, max_size=2).map(tuple),
    total=st.none() | BYTES,
    torn=st.dictionaries(TEXT | st.just("model.safetensors"), TEXT, max_size=2),
    chat_template=st.booleans(),
)
RECORDS = st.dictionaries(st.sampled_from(["deployment", "boot_id", "gpus", "ports", "stopped_at", "run_id"]), JSON)
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "gpus": st.lists(
        st.builds(Gpu, st.integers(0, 9), TEXT, TEXT, BYTES, BYTES, PROCESSES.map(tuple), st.none() | st.integers(),
                  st.none() | st.booleans(), st.none() | st.booleans()),
        max_size=9, unique_by=lambda gpu: gpu.index,
    ).map(tuple),
    "interfaces": st.lists(
        st.builds(Interface, TEXT, ADDRESSES, st.integers()), max_size=2
    ).map(tuple),
    "ports": st.lists(
        st.builds(ListeningPort, st.sampled_from([8000, 6379]), TEXT, st.none() | st.integers(0, 9), TEXT), max_size=2
    ).map(tuple),
    "models": st.lists(MODELS, max_size=2).map(tuple),
    "locks": st.lists(st.builds(HeldLock, TEXT | st.just("qwen"), st.integers(), st.dictionaries(TEXT, JSON)),
                      max_size=1).map(tuple),
    "foreign_ray": st.lists(st.builds(ForeignRay, st.integers(), TEXT, TEXT), max_size=2).map(tuple),
    "tls_files": st.dictionaries(TEXT, st.builds(TlsFile, TEXT, st.integers(), st.none() | st.floats(), st.tuples(TEXT),
                                                 st.booleans(), TEXT), max_size=2),
    "deployments": st.lists(RECORDS, max_size=2).map(tuple),
    "runs": st.dictionaries(TEXT, st.integers(), max_size=2),
    "unwritable": st.lists(TEXT, max_size=2).map(tuple),
    "infiniband": st.lists(TEXT, max_size=1).map(tuple),
    "all2all": st.lists(TEXT | st.just("deep_ep"), max_size=2).map(tuple),
    "hostname_addresses": st.lists(TEXT, max_size=2).map(tuple),
    "sees_everyone": st.booleans(),
    **{name: st.none() | TEXT for name in ("python", "ray", "vllm", "torch", "router", "nixl", "aiohttp", "parser",
                                           "environment_error", "gpu_error", "driver_version")},
    "default_address": st.none() | st.ip_addresses().map(str),
    **dict.fromkeys(("user", "home", "hostname", "boot_id", "probe_python", "noise", "boot", "boot_problem",
                     "kept"), TEXT),
    **dict.fromkeys(("uid", "cpus", "memory_total", "memory_available", "disk_free", "tmp_free", "shm_total",
                     "shm_free", "open_files", "locked_memory"), BYTES),
    **dict.fromkeys(("resolver_seconds", "clock", "asked_at"), st.floats()),
}  # fmt: skip
ANSWERS = st.fixed_dictionaries({}, optional=PARTS) | st.sampled_from(
    [kind("gpu01", "odd") for kind in (UnreachableError, TcpError, RemoteError, NoReplyError)]
)
ARGUMENT = TEXT.filter(lambda text: "\0" not in text)  # the planner refuses what no command line can carry
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | ARGUMENT
FLAG_NAMES = ("max-model-len", "gpu-memory-utilization", "kv-cache-dtype", "quantization", "dtype", "load-format",
              "trust-remote-code", "cpu-offload-gb", "decode-context-parallel-size")  # fmt: skip
FLAGS = st.fixed_dictionaries({}, optional=dict.fromkeys(FLAG_NAMES, SCALAR))
NAME = st.sampled_from(HOSTS)
USES, FAILURES = (
    st.sampled_from(["data", "Ray's port"]),
    st.sampled_from([None, *get_args(ConnectFailure), "not-tried"]),
)
RATES = st.none() | st.floats(0, 1e10)
LINKS = st.lists(
    st.builds(
        Link,
        NAME,
        NAME,
        st.ip_addresses().map(str),
        st.integers(0, 65535),
        USES,
        st.booleans(),
        FAILURES,
        TEXT,
        st.floats(0, 9),
        RATES,
    ),
    max_size=9,
)


def test_every_fact_is_among_those_that_are_tried() -> None:
    assert {field_.name for field_ in fields(Facts)} == set(PARTS)


@settings(max_examples=200, deadline=None)
@given(
    answers=st.dictionaries(NAME, ANSWERS, max_size=4),
    tp=st.integers(1, 40),
    flags=FLAGS,
    tried=LINKS,
    parsed=st.builds(Parsed, TEXT, st.lists(TEXT, max_size=2).map(tuple), st.lists(TEXT, max_size=2).map(tuple), TEXT),
    configured=st.booleans(),
)
def test_checks_never_raise(
    answers: Any, tp: int, flags: Any, tried: list[Link], parsed: Parsed, configured: bool
) -> None:
    serve_spec = spec(model(tp=tp, engine_args=flags), ray="on") if configured else None
    verdicts = judge(make_context(answers, serve_spec=serve_spec, tried=tuple(tried), parsed={"qwen/0": parsed}))
    assert {verdict.check for verdict in verdicts} == set(NAMES)
    assert all(isinstance(verdict.found + verdict.expected + verdict.remedy, str) for verdict in verdicts)
