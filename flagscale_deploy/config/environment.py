"""`experiment.envs` and `deploy.secrets`: variables as a shell user expects them, secret ones apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from flagscale_deploy.config.dialects.model import Entry
from flagscale_deploy.config.schema.places import Findings, Path
from flagscale_deploy.config.schema.settings import Deploy
from flagscale_deploy.secrets import Secret, is_secret_name

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_variables(envs: Mapping[str, Any], path: Path, findings: Findings) -> tuple[dict[str, str], dict[str, Secret]]:
    """Variables and secret variables: `true` is "true", a number is as it was written, nothing (null) is left out."""
    public: dict[str, str] = {}
    secret: dict[str, Secret] = {}
    for name, value in envs.items():
        where = (*path, name)
        if not _NAME.fullmatch(name):
            findings.add(where, "is not the name of a variable", "letters, digits and _, no digit first")
        elif isinstance(value, (dict, list)):
            kind = "a list" if isinstance(value, list) else "a mapping"
            findings.add(where, f"is {kind}", "write the text that the variable shall hold, such as 0,1,2,3")
        elif value is not None and is_secret_name(name) and not isinstance(value, bool):
            secret[name] = Secret(str(value))
        elif value is not None:
            public[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return public, secret


def take_secrets(names: Sequence[str], path: Path, environ: Mapping[str, str], findings: Findings) -> dict[str, Secret]:
    """The variables of `deploy.secrets` from the operator's environment."""
    taken = {}
    for name in names:
        if environ.get(name):
            taken[name] = Secret(environ[name])
        else:
            findings.add(path, f"{name} is not set in your environment", f"export {name}=…, or take it off the list")
    return taken


def read_secret_files(files: Mapping[str, str], path: Path, findings: Findings) -> dict[str, Secret]:
    """The variables of `deploy.secret_files`: what a file on this machine holds, without its last line end."""
    read = {}
    for name, written in files.items():
        where = (*path, name)
        try:
            text = FilePath(written).expanduser().read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            findings.add(where, f"{written} cannot be read: {why}", "a relative path starts where you are")
        except ValueError:
            findings.add(where, f"{written} holds no text", "write the secret alone into it, as UTF-8")
        else:
            if not text or "\0" in text:
                findings.add(where, f"{written} holds no text", "write the secret alone into it, as UTF-8")
            else:
                read[name] = Secret(text)
    return read


def read_environment(
    entries: Sequence[Entry],
    envs: Mapping[str, Any],
    deploy: Deploy,
    set_in: Mapping[str, Path],
    environ: Mapping[str, str],
    findings: Findings,
) -> tuple[dict[str, str], dict[str, Secret]]:
    """The variables of the whole deployment, from `experiment.envs`, `deploy.secrets`, `deploy.secret_files` and secret
    flags of models.

    A secret that two places set differently is a fault. `nodes_envs` among the variables is for single hosts: see
    `per_host.py`.
    """
    shared = {name: value for name, value in envs.items() if name != "nodes_envs"}
    env, secret_env = read_variables(shared, ("experiment", "envs"), findings)
    names = deploy.secrets or ()
    taken = take_secrets(names, set_in["secrets"], environ, findings) if names else {}
    files = deploy.secret_files or {}
    filed = read_secret_files(files, set_in["secret_files"], findings) if files else {}
    ours = [(taken, set_in.get("secrets", ())), (filed, set_in.get("secret_files", ()))]
    for variables, path in ours + [(entry.secret_env, entry.path) for entry in entries]:
        for variable, secret in variables.items():
            if secret_env.setdefault(variable, secret) != secret or variable in env:
                findings.add(path, f"sets {variable} to another value than a place before", "set it in one place")
    return env, secret_env
