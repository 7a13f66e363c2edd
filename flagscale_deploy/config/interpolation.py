r"""Resolve `${…}` in values, by OmegaConf: `${experiment.exp_name}`, `${oc.env:VAR,default}`; `\${X}` stays `${X}`."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, cast

import omegaconf
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException, UnsupportedInterpolationType

from flagscale_deploy.config.schema.places import Checked, KeyFaults, Path
from flagscale_deploy.config.source import parse_yaml
from flagscale_deploy.errors import InputError, causes
from flagscale_deploy.secrets import is_secret_name
from flagscale_deploy.support.learn_secrets import learn
from flagscale_deploy.support.value import Tree, Value

_MISSING = "???"
_BARE_DEFAULT = re.compile(
    r"((?<!\\)(?:\\\\)*\$\{\s*oc\.env\s*:\s*[^\s,:{}'\"$\\]+\s*,)"  # ${oc.env:NAME, no backslash before it
    r"([^'\"$\\\[\]{},]*)\}"
)
_HOST_VARIABLE = re.compile(r"(?<!\\)\$\{([A-Z_][A-Z0-9_]*)\}")
_UNSET = object()
_environ: ContextVar[Mapping[str, str]] = ContextVar("environ", default=os.environ)
_taken: ContextVar[list[str]] = ContextVar("taken")


LONGEST = 64 << 10
"""Characters of a text that has a `${…}`: parsing them takes a second."""
MOST_STEPS = 800_000
"""Calls within OmegaConf, of which each `${…}` takes a thousand, within about a second."""


class _TooManyStepsError(BaseException):
    """OmegaConf wraps what is an Exception, and goes on."""


class UnsetVariableError(KeyError):
    """A variable of the operator's environment is not set, and there is no default."""


def _environment_variable(name: str, default: object = _UNSET) -> str | None:
    """Do what OmegaConf's own `oc.env` does, over the environment that `interpolate` was called with."""
    value = _environ.get().get(name)
    if value is not None:
        if is_secret_name(name):
            for text in (value, *_leaves(value)):
                learn(text)
                _taken.get().append(text)
        return value
    if default is _UNSET:
        raise UnsetVariableError(f"the environment variable {name} is not set")
    return None if default is None else str(default)


def _leaves(text: str) -> Iterator[str]:
    """Yield the texts within a list or a mapping, which `oc.create` and `oc.decode` make of a variable."""
    waiting: list[object] = []
    if text.lstrip()[:1] in ("[", "{"):
        with suppress(InputError, RecursionError):
            waiting.append(parse_yaml(text, "a variable"))
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str):
            yield value


# OmegaConf 2.4 renamed it, and warns of the name that is the only right one in 2.3.
_RENAMED = tuple(map(int, omegaconf.__version__.split(".")[:2])) >= (2, 4)
_register = OmegaConf.register_resolver if _RENAMED else OmegaConf.register_new_resolver
_register("oc.env", _environment_variable, replace=True)


def interpolate(tree: Tree, environ: Mapping[str, str], taken: list[str] | None = None) -> Checked[Tree]:
    """Return the tree with every `${…}` replaced; each that cannot be is a fault.

    The values of secret variables that stand in it then are added to `taken`.
    `hydra` is left out of the result: its `${now:…}` mean something to Hydra only.
    """
    token, token_of_taken = _environ.set(environ), _taken.set([] if taken is None else taken)
    steps = _Steps()
    try:
        with steps.counted():
            return _interpolate(tree)
    except BaseException:  # OmegaConf may raise another error over ours
        if steps.left >= 0:
            raise
        faults = KeyFaults()
        faults.add((), "its ${…} stand for too much", "write the values in place of some of them")
        return {}, faults
    finally:
        _environ.reset(token)
        _taken.reset(token_of_taken)


def _interpolate(tree: Tree) -> Checked[Tree]:
    faults = KeyFaults()
    tree = _with_host_variables(tree)
    tree = {key: faults.take(_readable(value, (key,))) for key, value in tree.items()}
    # Values of other types than OmegaConf's own are allowed so that a WrittenFloat comes back as the one it was.
    config = OmegaConf.create(tree, flags={"allow_objects": True}) if _refers(tree) else tree
    ours = {key: value for key, value in tree.items() if key != "hydra"}
    return {key: faults.take(_resolved(value, config, key, (key,))) for key, value in ours.items()}, faults


def _with_host_variables(tree: Tree) -> Tree:
    """Return the tree with `${NAME}` in `experiment.envs` kept from OmegaConf, unless NAME is a key at the top."""

    def kept(value: Value) -> Value:
        if isinstance(value, dict):
            return {key: kept(item) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        return _HOST_VARIABLE.sub(lambda match: match[0] if match[1] in tree else f"\\{match[0]}", value)

    experiment = tree.get("experiment")
    if not isinstance(experiment, dict) or "envs" not in experiment:
        return tree
    return {**tree, "experiment": {**experiment, "envs": kept(experiment["envs"])}}


class _Steps:
    """The calls that OmegaConf may still make; `left` is below 0 where it made too many.

    `${a}${a}` in 30 places doubles a text 30 times, and OmegaConf has no limit. Calls are counted as a profiler does.
    """

    def __init__(self) -> None:
        self.left = MOST_STEPS
        self.depth = 0
        # Far from Python's own limit: an error of recursion within `_count` would end the counting.
        self.deepest = (sys.getrecursionlimit() - len(inspect.stack(0))) // 2

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count calls in the block. Raises _TooManyStepsError for too many, too deep ones, and too long texts."""
        profiler = sys.getprofile()
        sys.setprofile(self._count)
        try:
            yield
            if self.left < 0:
                raise _TooManyStepsError
        finally:
            sys.setprofile(profiler)

    def _count(self, frame: FrameType, event: str, value: object) -> None:
        if event == "call":
            self.left -= 1
            self.depth += 1
        elif event == "return":
            self.left -= len(value) // 64 if isinstance(value, str) else 0
            self.depth -= 1
        if self.left < 0 or self.depth > self.deepest:
            self.left = -1
            if event == "call" and not frame.f_code.co_flags & inspect.CO_GENERATOR:  # else lost
                raise _TooManyStepsError


def _readable(value: Value, path: Path) -> Checked[Value]:
    """Return the value less those `${…}` that OmegaConf cannot parse: it would refuse the whole tree for one."""
    faults = KeyFaults()
    if isinstance(value, dict):
        return {key: faults.take(_readable(item, (*path, key))) for key, item in value.items()}, faults
    if isinstance(value, list):
        return [faults.take(_readable(item, (*path, str(index)))) for index, item in enumerate(value)], faults
    if isinstance(value, str) and "${" in value:
        if len(value) > LONGEST:
            faults.add(path, f"has ${{…}} and is longer than {LONGEST:,} characters", "write it without ${…}")
            return None, faults
        value = _quoted_defaults(value)
        try:
            OmegaConf.create([value])
        except (OmegaConfBaseException, RecursionError):
            remedy = "as in ${experiment.exp_name}, ${oc.env:VAR,default}"
            faults.add(path, "holds a ${…} that cannot be read", remedy)
            return None, faults
    return value, faults


def _quoted_defaults(text: str) -> str:
    """Return the text with bare defaults of `oc.env` in quotes: without, OmegaConf makes 1e-05 of `1e-5`.

    `null` is left bare: it means nothing. So is what has quotes around it already, of both kinds.
    """
    quote = next((mark for mark in "'\"" if mark not in text), None)
    if quote is None:
        return text
    return _BARE_DEFAULT.sub(
        lambda match: (
            match[0] if match[2].strip().lower() == "null" else f"{match[1]}{quote}{match[2].strip()}{quote}}}"
        ),
        text,
    )


def _refers(value: Value) -> bool:
    if isinstance(value, str):
        return "${" in value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_refers, children))


def _resolved(value: Value, parent: Any, key: Any, path: Path) -> Checked[Value]:
    faults = KeyFaults()
    if isinstance(value, dict):
        return {
            name: faults.take(_resolved(item, parent[key], name, (*path, name))) for name, item in value.items()
        }, faults
    if isinstance(value, list):
        return [
            faults.take(_resolved(item, parent[key], index, (*path, str(index)))) for index, item in enumerate(value)
        ], faults
    if value == _MISSING:
        faults.add(path, "has no value (???)", f"add {'.'.join(path)}=… to the command line")
    elif isinstance(value, str) and "${" in value:
        try:
            node = parent[key]
            resolved = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
            return cast(Value, resolved), faults
        except OmegaConfBaseException as error:
            faults.add(path, _problem(error), _remedy(error))
        except RecursionError:
            faults.add(path, "refers to itself", "name a value that stands elsewhere")
    return value, faults


def _problem(error: OmegaConfBaseException) -> str:
    first = str(error).splitlines()[0]
    return first.partition("raised while resolving interpolation: ")[2].strip("\"'") or first


def _remedy(error: OmegaConfBaseException) -> str:
    if isinstance(error, (InterpolationKeyError, UnsupportedInterpolationType)):
        return "for a shell variable write \\${NAME}; for the operator's environment ${oc.env:NAME}"
    if any(isinstance(cause, UnsetVariableError) for cause in causes(error)):
        return "export it, or give a default: ${oc.env:NAME,default}"
    return "as in ${experiment.exp_name}, ${oc.env:NAME,default}"
