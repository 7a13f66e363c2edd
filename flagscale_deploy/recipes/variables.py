"""Read the variables of a recipe."""

from __future__ import annotations

import re

from flagscale_deploy.errors import InputError
from flagscale_deploy.recipes.command import OTHER, read_text, refuse_placeholder
from flagscale_deploy.recipes.dropped import VARIABLES
from flagscale_deploy.secrets import is_secret_name
from flagscale_deploy.support.quote import quoted

MOST = 200
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,99}")
_OF_THE_SYSTEM = re.compile(
    r"(?:LD|BASH|SSL|GIT|SSH|OPENSSL|RAY)_.*|.*_PROXY|PYTHON(?!NOUSERSITE$|HASHSEED$|UNBUFFERED$).*"
    r"|PATH|HOME|SHELL|ENV|IFS|USER|TMPDIR|CC|CXX|CUDACXX|NVCC.*|.*_(?:PATH|PLUGINS?|COMMAND|HOOK|ENDPOINT|SERVER|URL)"
    r"|VLLM_SERVER_DEV_MODE|VLLM_ALLOW_(?:INSECURE_SERIALIZATION|RUNTIME_LORA_UPDATING)"
)
"""Variables that decide which programs and libraries run, whom they talk to, or what clients may make them run."""
_PLACE = re.compile(r"[/\\~]")
"""What is in the value of a variable that names a file or an address; no recipe of the site has one."""


def read_variables(env: object, where: str) -> dict[str, str]:
    """Return variables without those that the plan supplies; `where` is their file and key. Raises InputError."""
    if not isinstance(env, dict) or len(env) > MOST:
        held = f"{len(env):,} variables" if isinstance(env, dict) else quoted(env)
        raise InputError.at(where, f"found {held}, expected at most {MOST} variables", OTHER)
    variables: dict[str, str] = {}
    for name, value in env.items():
        place = f"{where}.{name}"
        if not _NAME.fullmatch(name) or _OF_THE_SYSTEM.fullmatch(name) or is_secret_name(name):
            raise InputError.at(place, f"found {quoted(name)}, expected a variable of vLLM or its libraries", OTHER)
        text = read_text(value, place)
        if name not in VARIABLES:
            refuse_placeholder(text, place)
            if _PLACE.search(text):
                raise InputError.at(place, f"found {quoted(text)}, expected no path and no address", OTHER)
            variables[name] = text
    return variables
