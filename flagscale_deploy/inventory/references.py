"""Jinja references in the variables of an Ansible inventory, resolved for the keys that we read.

As in Ansible, a variable is resolved when it is used, with the host's other variables in scope. Filters are Jinja's
own and those of `ansible_filters.py`. Of lookups there is `env`; others would run programs and read files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from types import NoneType

import jinja2
from jinja2 import pass_context
from jinja2.runtime import Context, Undefined

from flagscale_deploy.inventory.ansible_filters import FILTERS
from flagscale_deploy.inventory.document import Encrypted, Section, Unsafe
from flagscale_deploy.inventory.surroundings import Environ
from flagscale_deploy.remote.wire import cut
from flagscale_deploy.support.quote import LONGEST, quoted
from flagscale_deploy.support.sandbox import WRONG, BoundedEnvironment
from flagscale_deploy.support.template_budget import measured

_OWNER = " references "
_DATA = (str, int, float, date, NoneType)
_EXPRESSION = re.compile(r"\s*\{\{-?((?:(?!\{\{|\}\}).)*?)-?\}\}\s*", re.DOTALL)
_IN_BRACES = re.compile(r"\{\{(?:(?!\{\{|\}\}).)*\}\}", re.DOTALL)


class ReferenceProblem(Exception):
    """A variable could not be resolved. `str()` completes "found …", `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.remedy = remedy
        super().__init__(problem)


class References(Mapping[str, object]):
    """The variables of one host, each resolved when it is asked for.

    As a mapping it is what a template sees as `hostvars['gpu01']`.
    """

    def __init__(self, variables: Mapping[str, object], environ: Environ) -> None:
        self.environ = environ
        self._variables = {**variables, _OWNER: self}
        self._resolving: list[str] = []

    def __getitem__(self, name: str) -> object:
        return self.resolve(self._variables[name])

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._variables if name != _OWNER)

    def __len__(self) -> int:
        return len(self._variables) - 1

    def read(self, value: object) -> object:
        """Return the value resolved. Raises ReferenceProblem also where it is no data: `{{ hostvars }}`."""
        resolved = self.resolve(value)
        waiting = [resolved]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                waiting += part.values()
            elif isinstance(part, list | tuple):
                waiting += part
            elif not isinstance(part, _DATA):
                raise ReferenceProblem(f"{quoted(value)}, which is no text, number, list or mapping")
        return resolved

    def resolve(self, value: object) -> object:
        """Return the value with its references followed, in lists and mappings as well.

        A text that is nothing but one `{{ expression }}` becomes that expression's value, of whatever type; any other
        becomes text. Raises ReferenceProblem where a name is unknown, encrypted, or refers to itself, and where a
        filter is unknown.
        """
        if isinstance(value, Encrypted):
            raise ReferenceProblem(
                "a value encrypted with ansible-vault", "write it in plain text; nothing is decrypted here"
            )
        if isinstance(value, Section):
            return _resolved_section(value, self.resolve)
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if isinstance(value, Unsafe):
            return str(value)
        return self._render(value) if isinstance(value, str) and ("{{" in value or "{%" in value) else value

    def _render(self, text: str) -> object:
        if text in self._resolving:
            raise ReferenceProblem(f"{quoted(text)}, which refers to itself")
        self._resolving.append(text)
        try:
            return self.resolve(measured(_compiled(text)(self._variables)))
        except jinja2.UndefinedError as error:
            raise ReferenceProblem(
                f"{quoted(text)}: {error.message}", "define it, or write the value itself"
            ) from error
        except jinja2.TemplateSyntaxError as error:
            remedy = "Jinja's filters and some of Ansible's are known here; write the value itself"
            raise ReferenceProblem(f"{quoted(text)}: {error.message}", remedy) from error
        except RecursionError as error:
            raise ReferenceProblem(f"{quoted(text)}, which leads on too often", "write the value itself") from error
        except WRONG as error:
            raise ReferenceProblem(
                f"{quoted(text)}: {cut(str(error), LONGEST) or 'is nested too deeply'}", "write the value itself"
            ) from error
        finally:
            self._resolving.pop()


class _Context(Context):
    """The scope of a template that resolves a variable at the moment the template names it."""

    def resolve_or_missing(self, key: str) -> object:
        value = super().resolve_or_missing(key)
        owner = self.parent.get(_OWNER)
        return owner.resolve(value) if isinstance(owner, References) else value


class _Missing(jinja2.ChainableUndefined, jinja2.StrictUndefined):
    """What is undefined. So is each of its parts, for which `default` can stand in, as in Ansible."""


@pass_context
def _lookup(context: Context, kind: str, *names: str, default: object = "") -> object:
    """Return variables of the operator's environment, joined by commas as Ansible does it."""
    owner = context.parent[_OWNER]
    assert isinstance(owner, References), "the scope of every template"
    if kind.rpartition(".")[2] != "env":
        raise jinja2.TemplateRuntimeError(f"lookup({quoted(kind)}) is not run here, only lookup('env', …)")
    values = [owner.environ.look_up(name, default) for name in names]
    return values[0] if len(values) == 1 else ",".join(map(str, values))


_environment = BoundedEnvironment(FILTERS)
_environment.context_class = _Context
_environment.undefined = _Missing
_environment.globals["lookup"] = _lookup


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Callable[[Mapping[str, object]], object]:
    # Compiled once for all hosts: a group variable is the same text on each of a thousand. As in Ansible, a backslash
    # in an expression is one of a regular expression: `regex_replace('(.)', '\\1')`.
    text = _IN_BRACES.sub(lambda braces: braces[0].replace("\\", "\\\\"), text)
    expression = _EXPRESSION.fullmatch(text)
    if expression is None:
        template = _environment.from_string(text)
        return lambda variables: template.render(variables)
    evaluate = _environment.compile_expression(expression[1].strip(), undefined_to_none=False)
    return lambda variables: _defined(evaluate(variables))


def _defined(value: object) -> object:
    if isinstance(value, Undefined):
        str(value)  # StrictUndefined raises here, with the name in its message.
    return value


def _resolved_section(section: Section, resolve: Callable[[object], object]) -> Section:
    resolved = Section(((key, resolve(value)) for key, value in section.items()), section.line)
    resolved.lines = section.lines
    resolved.written = {key: text for key, text in section.written.items() if resolved[key] is section[key]}
    return resolved
