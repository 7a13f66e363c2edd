"""Build four healthy hosts that serve one model over all of their GPUs, and judge them with one fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flagscale_deploy.checks.registry import judge
from flagscale_deploy.checks.types import Context, Link, Parsed, Verdict
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import HostError
from flagscale_deploy.facts.model import Facts, Gpu, Interface, ModelFiles, Observation
from flagscale_deploy.inventory.model import Inventory
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.partial import draft_in_part
from flagscale_deploy.plan.planner import Draft
from tests.unit.plan.given import RUN, TEMPLATES, inventory, model, spec
from tests.unit.plan.given import facts as plain_facts

GIB, MIB = 1 << 30, 1 << 20
HOSTS = ("gpu01", "gpu02", "gpu03", "gpu04")
PATH = "/models/qwen"
NOW = 1_790_000_000.0

CONFIG: Mapping[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "torch_dtype": "bfloat16",
}
"""Qwen2.5-72B-Instruct's, the keys that are looked at."""
WEIGHTS = {f"model-{part:05d}-of-00037.safetensors": 3_930_000_000 for part in range(1, 38)}
SMALL = ("config.json", "generation_config.json", "merges.txt", "model.safetensors.index.json", "tokenizer.json",
         "tokenizer_config.json", "vocab.json")  # fmt: skip
FILES = ModelFiles(PATH, "", CONFIG, dict.fromkeys(SMALL, "5f2c"), WEIGHTS, tuple(sorted(WEIGHTS)), chat_template=True)

ASKED = spec(model(tp=32, engine_args={"max-model-len": 32768}))


def facts(name: str, **changed: Any) -> Facts:
    """Return what the probe finds on a healthy host of eight GPUs."""
    number = int(name[-2:])
    gpu = Gpu(0, "", "NVIDIA H100 80GB HBM3", 81559, 4, (), 0, True, False)
    sound = plain_facts(
        name,
        uid=1000,
        home="/home/ubuntu",
        probe_python="3.10.12",
        torch="2.11.0",
        parser="5d3f",
        driver_version="580.95.05",
        gpus=tuple(replace(gpu, index=at, uuid=f"GPU-{number}-{at}") for at in range(8)),
        interfaces=(
            Interface("lo", ("127.0.0.1", "::1"), 65536),
            Interface("eth0", (f"10.0.0.{number}",), 1500),
        ),
        cpus=128,
        memory_total=1024 * GIB,
        memory_available=1000 * GIB,
        disk_free=500 * GIB,
        tmp_free=400 * GIB,
        shm_total=512 * GIB,
        shm_free=512 * GIB,
        open_files=1048576,
        locked_memory=8 * MIB,
        hostname_addresses=(f"10.0.0.{number}",),
        models=(FILES,),
        clock=NOW,
        asked_at=NOW + 0.2,
    )
    return replace(sound, **changed)


def links() -> tuple[Link, ...]:
    """Every host to every other on a port of chance, and all to Ray's on the head."""
    pairs = [(one, other) for one in HOSTS for other in HOSTS if one != other]
    data = [Link(one, other, f"10.0.0.{int(other[-2:])}", 40000 + int(other[-2:]), "data",
                 ephemeral=True, seconds=0.0003)
            for one, other in pairs]  # fmt: skip
    ray = [Link(one, "gpu01", "10.0.0.1", 6379, "Ray's port", seconds=0.0003) for one in HOSTS[1:]]
    return (*data, *ray)


PARSED = {"qwen/0": Parsed(known=("max-model-len", "max-num-seqs", "tensor-parallel-size"))}


def make_context(
    changed: Mapping[str, Mapping[str, Any] | HostError] | None = None,
    *,
    serve_spec: ServeSpec | None = ASKED,
    hosts: Inventory | None = None,
    tried: tuple[Link, ...] | None = None,
    parsed: Mapping[str, Parsed] | None = None,
    skip: tuple[str, ...] = (),
) -> Context:
    """Return the context of four hosts; some have other facts, or an error instead."""
    hosts = hosts or inventory(*HOSTS)
    seen = {}
    for name in hosts.names:
        change = (changed or {}).get(name, {})
        seen[name] = (
            Observation(name, error=change)
            if isinstance(change, HostError)
            else Observation(name, facts(name, **change))
        )
    known_facts = {name: observation.facts for name, observation in seen.items() if observation.facts is not None}
    made = (
        draft_in_part(Inputs(hosts, serve_spec, known_facts, RUN, TEMPLATES, skip=skip))
        if serve_spec is not None
        else Draft(None)
    )
    plan, faults = made.plan, (*made.faults, *made.idle)
    tried = links() if tried is None else tried
    return Context(
        hosts,
        serve_spec,
        seen,
        plan,
        faults,
        tried if plan else None,
        (PARSED if parsed is None else parsed) if plan else None,
    )


def complaints(context: Context, skip: tuple[str, ...] = ()) -> list[Verdict]:
    """Return the verdicts that are failures or warnings."""
    return [verdict for verdict in judge(context, skip) if verdict.state in ("failed", "warning")]


def only(context: Context) -> Verdict:
    """Return the only failure or warning."""
    verdicts = complaints(context)
    assert len(verdicts) == 1, "\n".join(map(str, verdicts))
    return verdicts[0]
