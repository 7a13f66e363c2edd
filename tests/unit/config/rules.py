"""What a FlagScale serve experiment asks for, read from its YAML by the rules that FlagScale published.

An oracle: it shares no code with the product, knows only well-formed experiments, and reads every scalar as the text
that stands in the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NEGATABLE = {"enable-chunked-prefill", "enable-prefix-caching", "enforce-eager", "trust-remote-code"}
"""Of the flags in the experiments here, those that vLLM also has as --no-…"""


@dataclass(frozen=True)
class Asked:
    """One model: the words after `vllm serve` without the port's, the port, GPUs of a copy, and copies."""

    name: str
    model: str
    words: frozenset[str]
    port: int
    gpus: int
    copies: int


def read(path: Path) -> dict[str, Any]:
    """Read an experiment file with the group that its defaults list mounts under `serve`."""
    tree: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    for entry in tree["defaults"]:
        if isinstance(entry, dict):
            group = path.parent / "serve" / f"{entry['serve']}.yaml"
            tree["serve"] = yaml.load(group.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    return tree


def asked_by(tree: dict[str, Any]) -> list[Asked]:
    """Return the models of an experiment."""
    serve, experiment = tree["serve"], tree["experiment"]
    if isinstance(serve, list):
        deploy = {**(experiment.get("runner", {}).get("deploy") or {}), **experiment.get("deploy", {})}
        return [_of_list(item, deploy.get("port")) for item in serve]
    deploy = serve.get("deploy", {})
    return [_of_model_args(name, args, deploy) for name, args in serve["model_args"].items()]


def refused(path: Path) -> str | None:
    """Return a word of the error that an experiment shall get, or None if it can be planned."""
    tree: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    groups = [entry["serve"] for entry in tree["defaults"] if isinstance(entry, dict) and "serve" in entry]
    if not all((path.parent / "serve" / f"{group}.yaml").is_file() for group in groups):
        return "is not there"
    serve = read(path)["serve"]
    models = (serve.get("deploy") or {}).get("models") or {} if isinstance(serve, dict) else {}
    if any("module" in (model or {}) or "depends" in (model or {}) for model in models.values()):
        return "composition graph"
    return None


def hostfile(text: str) -> list[tuple[str, int, str]]:
    """Host, slots and type of each line; the first is the head."""
    lines = [line.strip() for line in text.splitlines()]
    hosts = []
    for line in lines:
        if line and not line.startswith("#"):
            host, *pairs = line.split()
            given = dict(pair.split("=", 1) for pair in pairs)
            hosts.append((host, int(given["slots"]), given.get("type", "gpu")))
    return hosts


def _of_model_args(name: str, args: dict[str, Any], deploy: dict[str, Any]) -> Asked:
    options = (deploy.get("models") or {}).get(name) or {}
    flags = {key.replace("_", "-"): value for key, value in args.items() if key != "action-args"}
    words = {word for key, value in flags.items() for word in _word(key, value)}
    words |= {f"--{action}" for action in args.get("action-args") or []}
    port = deploy.get("port") or deploy.get("service", {}).get("port") or args.get("port") or "8000"
    return _asked(name, args.get("model-tag") or args["model"], words, port, args, options)


def _of_list(item: dict[str, Any], deploy_port: str | None) -> Asked:
    specific = (item.get("engine_args_specific") or {}).get("vllm") or {}
    args = {**specific, **item["engine_args"]}
    words = {word for key, value in args.items() for word in _word(key.replace("_", "-"), value)}
    port = deploy_port or args.get("port") or "8000"
    return _asked(item["serve_id"], args["model"], words, port, args, item.get("resources") or {})


def _asked(name: str, model: str, words: set[str], port: str, args: dict[str, Any], options: dict[str, Any]) -> Asked:
    plain = {key.replace("_", "-"): value for key, value in args.items()}
    ranks = int(plain.get("tensor-parallel-size", 1)) * int(plain.get("pipeline-parallel-size", 1))
    gpus = int(options.get("num_gpus", ranks))
    return Asked(name, model, frozenset(words), int(port), gpus, int(options.get("num_replicas", 1)))


def _word(key: str, value: Any) -> list[str]:
    if key in ("model", "model-tag", "port") or value in ("null", "~", ""):
        return []
    if key == "limit-mm-per-prompt" and isinstance(value, str):
        value = {name: int(number) for name, number in (pair.split("=") for pair in value.split(","))}
    if isinstance(value, dict):
        return [f"--{key}={json.dumps(value, separators=(',', ':'))}"]
    if value in ("true", "True"):
        return [f"--{key}"]
    if value in ("false", "False"):
        return [f"--no-{key}"] if key in NEGATABLE else []
    return [f"--{key}={value}"]
