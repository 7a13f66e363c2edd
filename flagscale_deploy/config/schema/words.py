"""The short words of `deploy.ray`, `router`, `gate` and `restart`: a mode or policy by itself in place of a mapping."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator

from flagscale_deploy.config.schema.values import UnfitError

_RAY_WORDS = {
    **dict.fromkeys(("on", "true", "yes", "always"), "on"),
    **dict.fromkeys(("off", "false", "no", "never"), "off"),
    "auto": "auto",
}
_ROUTER_WORDS = {
    **dict.fromkeys(("on", "true", "yes", "always"), True),
    **dict.fromkeys(("none", "off", "false", "no", "never"), False),
    "auto": None,
}
_Policy = Literal[
    "random", "round_robin", "cache_aware", "kv_aware", "power_of_two", "consistent_hash", "sticky_least_loaded"
]
"""Those of vllm-router 0.1.17."""
_Executor = Literal["ray", "mp", "auto"]


def ray_keys(value: object) -> object:
    """Return the mapping that `deploy.ray` means: a mode by itself, or a mapping."""
    return value if isinstance(value, dict) else {"mode": value}


def router_keys(value: object) -> object:
    """Return the mapping that `deploy.router` means: `none`, `always`, `auto`, the name of a policy, or a mapping."""
    if isinstance(value, (dict, list)):
        return value
    word = str(value).lower()
    return {"enabled": _ROUTER_WORDS[word]} if word in _ROUTER_WORDS else {"policy": value}


def gate_keys(value: object) -> object:
    """Return the mapping that `deploy.gate` means: on or off by itself, or a mapping."""
    return value if isinstance(value, (dict, list)) else {"enabled": value}


def restart_keys(value: object) -> object:
    """Return the mapping that `deploy.restart` means; a mapping asks for restarts unless it has a policy."""
    return {"policy": "on-failure", **value} if isinstance(value, dict) else {"policy": value}


def backoff_keys(value: object) -> object:
    """Return the mapping that `deploy.restart.backoff` means: always the same seconds, or a mapping."""
    return value if isinstance(value, dict) else {"first": value, "factor": 1, "max": value}


def _ray_mode(value: object) -> object:
    mode = None if value is None else _RAY_WORDS.get(str(value).lower())
    if mode is None and value is not None:
        raise UnfitError("expected always, auto or never", "as in ray: auto, or ray: {mode: auto, port: 6379}")
    return mode


def _executor(value: object) -> object:
    word = str(value).lower()
    if value is not None and word not in get_args(_Executor):
        raise UnfitError("expected ray, mp or auto", "as in executor: mp, which joins hosts without Ray")
    return None if value is None else word


def _policy(value: object) -> object:
    if value is None:
        return None
    word = str(value).replace("-", "_").lower()
    if word not in get_args(_Policy):
        raise UnfitError(
            "is not a policy of vllm-router", f"one of {', '.join(get_args(_Policy))}; or none, auto, always"
        )
    return word


def _restart_policy(value: object) -> object:
    """Return the policy; YAML 1.1 reads a bare `no` as false."""
    word = str(value).replace("_", "-").lower()
    word = "no" if word in ("false", "off", "never") else word
    if word not in ("no", "on-failure"):
        raise UnfitError(
            "expected no or on-failure", "on-failure restarts a server that ends, whatever its exit status"
        )
    return word


RayWord = Literal["auto", "always", "on", "yes", "never", "off", "no"] | bool
RouterWord = Literal["auto", "always", "on", "yes", "none", "never", "off", "no"] | _Policy | bool
RestartWord = Literal["no", "never", "off", "on-failure"] | bool
RayMode = Annotated[
    Literal["auto", "on", "off"] | None, BeforeValidator(_ray_mode, json_schema_input_type=RayWord | None)
]
ExecutorWord = Annotated[_Executor | None, BeforeValidator(_executor)]
RouterPolicy = Annotated[_Policy | None, BeforeValidator(_policy)]
RestartPolicy = Annotated[
    Literal["no", "on-failure"] | None, BeforeValidator(_restart_policy, json_schema_input_type=RestartWord | None)
]
