"""`experiment.envs` and `deploy.secrets`: variables as a shell user expects them, secret ones apart."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath

from flagscale_deploy.config.dialects.model import Entry
from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.config.schema.settings import Deploy
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.secrets import LONGEST, Secret, is_secret_name
from flagscale_deploy.support import shell
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.planted import refuse_planted
from flagscale_deploy.support.units import format_size
from flagscale_deploy.support.value import Value

Variables = tuple[dict[str, str], dict[str, Secret]]
"""Variables, and those whose values nobody may see."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST_VARIABLE = re.compile(r"\$(?:[A-Z_][A-Z0-9_]*|\{[A-Z_][A-Z0-9_]*\})")
_SECRETS = (
    "take it from your environment: deploy.secrets: [NAME], or ${oc.env:NAME}; or name a file in deploy.secret_files"
)
TOO_LONG = f"is longer than {format_size(LONGEST)}", "send a file to the hosts, and set a variable to its path"
"""What is wrong with a secret that could not be hidden in all that is printed, and what to do."""


def read_variables(envs: Mapping[str, Value], path: Path) -> Checked[Variables]:
    """Return variables as text: `true` is "true", a number is as it was written, null is left out.

    `$NAME` is a variable of the host, as in a shell's `export`; in a secret it is text like any other.
    """
    faults = KeyFaults()
    public: dict[str, str] = {}
    secret: dict[str, Secret] = {}
    for name, value in envs.items():
        where = (*path, name)
        if not _NAME.fullmatch(name):
            faults.add(where, "is not the name of a variable", "letters, digits and _, no digit first")
        elif isinstance(value, (dict, list)):
            kind = "a list" if isinstance(value, list) else "a mapping"
            faults.add(where, f"is {kind}", "write the variable's value as text, such as 0,1,2,3")
        elif value is not None and is_secret_name(name) and not isinstance(value, bool):
            if _HOST_VARIABLE.fullmatch(str(value)):
                faults.add(where, "refers to a variable of the host, but secrets travel from your machine", _SECRETS)
            secret[name] = Secret(str(value))
            _refuse_long(secret[name], where, faults)
        elif value is not None:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            public[name] = shell.Expanding(text) if shell.references(text) else text
    return (public, secret), faults


def take_secrets(names: Sequence[str], path: Path, environ: Mapping[str, str]) -> Checked[dict[str, Secret]]:
    """Return the variables of `deploy.secrets` from the operator's environment."""
    faults = KeyFaults()
    for name in names:
        if not environ.get(name):
            faults.add(path, f"{name} is not set in your environment", f"export {name}=…, or remove it from the list")
    return {name: Secret(environ[name]) for name in names if environ.get(name)}, faults


def read_secret_files(files: Mapping[str, str], path: Path) -> Checked[dict[str, Secret]]:
    """Return the variables of `deploy.secret_files`: what a file on this machine holds, without its last line end."""
    faults = KeyFaults()
    secrets: dict[str, Secret] = {}
    for name, file in files.items():
        where = (*path, name)
        try:
            refuse_planted(FilePath(), FilePath(file).expanduser())
            text = read_text(os.path.expanduser(file), LONGEST, encoding="utf-8").removesuffix("\n")
        except InputError as error:
            faults.add(where, f"{file} {error.faults[0].problem}", error.faults[0].remedy)
            continue
        if text:
            secrets[name] = Secret(text)
        else:
            faults.add(where, f"{file} is empty", "write the secret alone into it, as UTF-8")
    return secrets, faults


def _refuse_long(secret: Secret, where: Path, faults: KeyFaults) -> None:
    if len(secret.reveal()) > LONGEST:
        faults.add(where, *TOO_LONG)


def read_environment(
    entries: Sequence[Entry],
    envs: Mapping[str, Value],
    deploy: Deploy,
    set_in: Mapping[str, Path],
    environ: Mapping[str, str],
) -> Checked[Variables]:
    """Return the variables of the whole deployment.

    They come from `experiment.envs`, `deploy.secrets`, `deploy.secret_files` and secret flags of models; a secret that
    two places set differently is a fault. `nodes_envs` is for single hosts: see `per_host.py`.
    """
    faults = KeyFaults()
    shared = {name: value for name, value in envs.items() if name != "nodes_envs"}
    env, secret_env = faults.take(read_variables(shared, ("experiment", "envs")))
    sources: list[tuple[Mapping[str, Secret], Path]] = []
    if deploy.secrets:
        path = set_in["secrets"]
        sources.append((faults.take(take_secrets(deploy.secrets, path, environ)), path))
    if deploy.secret_files:
        path = set_in["secret_files"]
        sources.append((faults.take(read_secret_files(deploy.secret_files, path)), path))
    for variables, path in [*sources, *((entry.secret_env, entry.path) for entry in entries)]:
        for variable, secret in variables.items():
            _refuse_long(secret, (*path, variable), faults)
            if secret_env.setdefault(variable, secret) != secret or variable in env:
                faults.add(path, f"sets {variable} to another value than an earlier place", "set it in one place")
    return (env, secret_env), faults


def copies_of_secrets(env: Mapping[str, str], secrets: Mapping[str, Secret], where: str) -> Iterator[Fault]:
    """Yield a fault for each variable that refers to a secret; `where` is their place."""
    for name, text in env.items():
        for hidden in sorted(secrets.keys() & shell.references(text)) if isinstance(text, shell.Expanding) else ():
            remedy = f"let the program read {hidden} itself; no secret is copied into another variable"
            yield Fault(f"{where}.{name}", f"refers to the secret {hidden}", remedy)
