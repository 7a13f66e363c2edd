"""Write a deployment's configuration as it was resolved, without secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import cast

from flagscale_deploy.config.dialects.model import SECRET_FLAGS
from flagscale_deploy.config.schema.places import Path
from flagscale_deploy.config.schema.short_names import flag_name
from flagscale_deploy.config.source import dump_document
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.config.written import named
from flagscale_deploy.secrets import HIDDEN, is_secret_name
from flagscale_deploy.secrets.json_texts import without_secrets
from flagscale_deploy.support.value import Tree, Value

_REFERENCE = re.compile(r"\$\{oc\.env:[A-Za-z_][A-Za-z0-9_]{0,99}\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_DOLLAR = re.compile(r"(?<!\\)(\\*)\$\{")
_NAMES, _FILES = ("deploy", "secrets"), ("deploy", "secret_files")
"""Where names of secrets stand, and the files that hold them."""
_VARIABLES = ("envs", "env")
"""Mappings whose keys are the names of variables."""


def resolved_yaml(spec: ServeSpec, redact: Callable[[str], str] = str) -> str:
    """Return the serve YAML that the same specification is read from: overrides and references resolved, no secrets.

    Where a secret was, it has a reference to the operator's environment; [REDACTED] where there is none for it.
    """
    tree = {key: _kept(value, spec.tree.get(key), (key,)) for key, value in spec.resolved.items()}
    return dump_document(cast(Tree, without_secrets(named(tree, spec.name), redact)))


def without_secret(word: str) -> str:
    """Return a `key=value` word of the command line, without the value where the key says that it is secret."""
    key, _, value = word.partition("=")
    return f"{key}={HIDDEN}" if value and is_secret_name(key.rpartition(".")[2]) else word


def _kept(value: Value, written: Value, path: Path, *, secret: bool = False) -> Value:
    """Return a value of the resolved tree; `written` is the same before it was resolved."""
    secret = secret or (is_secret_name(path[-1]) and not {_NAMES, _FILES} & {path[-2:], path[-3:-1]})
    if isinstance(value, Mapping):
        below = written if isinstance(written, Mapping) else {}
        return {key: _kept(item, below.get(key), (*path, key), secret=secret) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = written if isinstance(written, list | tuple) and len(written) == len(value) else [None] * len(value)
        return [_kept(item, before, path, secret=secret) for item, before in zip(value, items, strict=True)]
    if secret and value is not None and not isinstance(value, bool):
        return _reference(written, path)
    return _DOLLAR.sub(r"\1\1\\${", value) if isinstance(value, str) else value


def _reference(written: Value, path: Path) -> str:
    if isinstance(written, str) and _REFERENCE.fullmatch(written):
        return written
    is_variable = any(key in _VARIABLES for key in path[:-1]) and _NAME.fullmatch(path[-1])
    variable = path[-1] if is_variable else SECRET_FLAGS.get(flag_name(path[-1]))
    return HIDDEN if variable is None else f"${{oc.env:{variable}}}"
