"""`${…}` in values, by OmegaConf: `${experiment.exp_name}`, `${oc.env:VAR,default}`; `\\${X}` stays `${X}`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import omegaconf
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException, UnsupportedInterpolationType

from flagscale_deploy.config.schema.places import Findings, Path

_MISSING = "???"
_PLAIN = r"[^'\"$\\\[\]{},\s]"
_BARE_DEFAULT = re.compile(
    r"((?<!\\)(?:\\\\)*\$\{\s*oc\.env\s*:\s*[^\s,:{}'\"$\\]+\s*,\s*)"  # ${oc.env:NAME, no backslash before it
    rf"((?:{_PLAIN}(?:(?:{_PLAIN}|\s)*{_PLAIN})?)?)\s*\}}"
)
_UNSET = object()
_environ: ContextVar[Mapping[str, str]] = ContextVar("environ", default=os.environ)


def _environment_variable(name: str, default: Any = _UNSET) -> str | None:
    """OmegaConf's own `oc.env`, over the environment that `interpolate` was given."""
    found = _environ.get().get(name)
    if found is not None:
        return found
    if default is _UNSET:
        raise KeyError(f"the environment variable {name} is not set")
    return None if default is None else str(default)


# OmegaConf 2.4 renamed it, and warns of the name that is the only right one in 2.3.
_RENAMED = tuple(map(int, omegaconf.__version__.split(".")[:2])) >= (2, 4)
_register = OmegaConf.register_resolver if _RENAMED else OmegaConf.register_new_resolver
_register("oc.env", _environment_variable, replace=True)


def interpolate(tree: dict[str, Any], environ: Mapping[str, str], findings: Findings) -> dict[str, Any]:
    """The tree with every `${…}` replaced; what cannot be is a finding, and stays.

    `hydra` is left out of the result: its `${now:…}` mean something to Hydra only.
    """
    tree = _readable(tree, (), findings)
    token = _environ.set(environ)
    try:
        # Values of other types than OmegaConf's own are allowed so that a WrittenFloat comes back as the one it was.
        config = OmegaConf.create(tree, flags={"allow_objects": True})
        ours = {key: value for key, value in tree.items() if key != "hydra"}
        return {key: _resolved(value, config, key, (key,), findings) for key, value in ours.items()}
    finally:
        _environ.reset(token)


def _readable(value: Any, path: Path, findings: Findings) -> Any:
    """The value less those `${…}` that OmegaConf cannot parse: it would refuse the whole tree for one of them."""
    if isinstance(value, dict):
        return {key: _readable(item, (*path, key), findings) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item, (*path, str(index)), findings) for index, item in enumerate(value)]
    if isinstance(value, str) and "${" in value:
        value = _quoted_defaults(value)
        try:
            OmegaConf.create([value])
        except OmegaConfBaseException:
            findings.add(
                path, "holds a ${…} that cannot be read", "as in ${experiment.exp_name}, ${oc.env:VAR,default}"
            )
            return None
    return value


def _quoted_defaults(text: str) -> str:
    """The text with bare defaults of `oc.env` in quotes, so that they stay as written: OmegaConf makes 1e-05 of `1e-5`.

    `null` is left bare: it means nothing. So is what has quotes around it already, of both kinds.
    """
    quote = next((each for each in "'\"" if each not in text), None)
    if quote is None:
        return text
    return _BARE_DEFAULT.sub(
        lambda found: found[0] if found[2].lower() == "null" else f"{found[1]}{quote}{found[2]}{quote}}}", text
    )


def _resolved(value: Any, parent: DictConfig | ListConfig, key: Any, path: Path, findings: Findings) -> Any:
    if isinstance(value, dict):
        return {each: _resolved(item, parent[key], each, (*path, each), findings) for each, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, parent[key], i, (*path, str(i)), findings) for i, item in enumerate(value)]
    if value == _MISSING:
        findings.add(path, "has to be given (???)", f"add {'.'.join(path)}=… to the command line")
    elif isinstance(value, str) and "${" in value:
        try:
            found = parent[key]
            return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
        except OmegaConfBaseException as error:
            findings.add(path, _problem(error), _remedy(error))
        except RecursionError:
            findings.add(path, "refers to itself", "name a value that stands elsewhere")
    return value


def _problem(error: OmegaConfBaseException) -> str:
    first = str(error).splitlines()[0]
    return first.partition("raised while resolving interpolation: ")[2].strip("\"'") or first


def _remedy(error: OmegaConfBaseException) -> str:
    if isinstance(error, (InterpolationKeyError, UnsupportedInterpolationType)):
        return "for a shell variable write \\${NAME}; for the operator's environment ${oc.env:NAME}"
    if "environment variable" in str(error):
        return "export it, or give a default: ${oc.env:NAME,default}"
    return "as in ${experiment.exp_name}, ${oc.env:NAME,default}"
