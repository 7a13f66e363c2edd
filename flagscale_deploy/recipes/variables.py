"""Read the variables of a recipe."""

from __future__ import annotations

import re

from flagscale_deploy.errors import InputError
from flagscale_deploy.recipes.command import read_text
from flagscale_deploy.recipes.dropped import VARIABLES
from flagscale_deploy.recipes.refused import OTHER, refuse_placeholder, refuse_variable
from flagscale_deploy.remote.wire import cut
from flagscale_deploy.secrets import is_secret_name
from flagscale_deploy.support.quote import quoted

MOST, LONGEST_PLACE = 200, 100
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,99}")


def read_variables(env: object, where: str) -> dict[str, str]:
    """Return variables without those that the plan supplies; `where` is their file and key. Raises InputError."""
    if not isinstance(env, dict) or len(env) > MOST:
        held = f"{len(env):,} variables" if isinstance(env, dict) else quoted(env)
        raise InputError.at(where, f"found {held}, expected at most {MOST} variables", OTHER)
    variables: dict[str, str] = {}
    for name, value in env.items():
        place = f"{where}.{cut(name, LONGEST_PLACE)}"
        if not _NAME.fullmatch(name) or is_secret_name(name):
            raise InputError.at(place, f"found {quoted(name)}, expected a variable of vLLM or its libraries", OTHER)
        text = read_text(value, place)
        if name not in VARIABLES:
            refuse_placeholder(text, place)
            refuse_variable(name, text, place)
            variables[name] = text
    return variables
