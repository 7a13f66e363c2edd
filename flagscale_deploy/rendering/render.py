"""Render `templates/` with Jinja; every value is quoted for the shell unless the template says otherwise."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

import flagscale_deploy
from flagscale_deploy.errors import InputError
from flagscale_deploy.remote.wire import cut
from flagscale_deploy.support import shell
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.planted import refuse_planted
from flagscale_deploy.support.sandbox import WRONG, BoundedEnvironment
from flagscale_deploy.support.template_budget import Budget
from flagscale_deploy.support.units import KIB

SUFFIX = ".j2"
MOST_BYTES = 256 * KIB
LONGEST_ERROR = 200


@dataclass(frozen=True)
class Templates:
    """Template sources by name (`ray_head.sh.j2`), so that rendering reads no file; `files` are the user's own."""

    sources: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Return a hash that changes with any template's text."""
        return hashlib.sha256(repr(sorted(self.sources.items())).encode()).hexdigest()

    def render(self, name: str, **context: Any) -> str:
        """Return a rendered script. Raises InputError for a missing or broken template, or an unknown value."""
        try:
            with self._budget.share():
                return self._environment.get_template(name).render(**context)
        except WRONG as error:
            raise InputError.at(
                self._place(error, name), f"template: {_error_text(error)}", "compare with the packaged template"
            ) from error

    @functools.cached_property
    def _budget(self) -> Budget:
        return Budget()

    @functools.cached_property
    def _environment(self) -> jinja2.Environment:
        """Return the Jinja environment, which caches compiled templates for all hosts of a plan.

        It bounds what templates do where one of them is the user's, which costs 40 ms for each plan.
        """
        options: dict[str, Any] = {
            "loader": jinja2.FunctionLoader(self._load),
            "finalize": _quoted,
            "trim_blocks": True,
            "lstrip_blocks": True,
            "autoescape": False,  # it is shell, not HTML: `finalize` quotes
        }
        if self.files:
            return BoundedEnvironment(_FILTERS, MOST_BYTES, **options)
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, **options)
        environment.filters |= _FILTERS
        return environment

    def _load(self, name: str) -> tuple[str, str, None] | None:
        return (self.sources[name], self.files.get(name, name), None) if name in self.sources else None

    def _place(self, error: Exception, name: str) -> str:
        """Return file and line of an error: a syntax error has them, others are in the innermost template's frame."""
        if isinstance(error, jinja2.TemplateSyntaxError):
            return f"{error.filename or error.name}:{error.lineno}"
        names = {self.files.get(source, source) for source in self.sources}
        place = self.files.get(name, name)
        for frame, line in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename in names:
                place = f"{frame.f_code.co_filename}:{line}"
        return place


def load_templates(override: Path | None = None) -> Templates:
    """Load the packaged templates; those in the directory `override` (`--templates DIR`) replace them by name."""
    sources = {
        entry.name: entry.read_text(encoding="utf-8") for entry in _packaged().iterdir() if entry.name.endswith(SUFFIX)
    }
    files = {}
    if override is not None:
        if not os.path.isdir(override):
            raise InputError.at(str(override), "templates: no such directory")
        for path in sorted(override.glob(f"*{SUFFIX}")):
            if path.name not in sources:
                names = ", ".join(sorted(sources))
                raise InputError.at(str(path), "overrides no template", f"the templates are: {names}")
            refuse_planted(override, path)
            sources[path.name], files[path.name] = read_text(path, MOST_BYTES), str(path)
    return Templates(sources, files)


def _packaged() -> Path:
    """Return the folder of our own templates: in the installed package, or at the top of a clone."""
    installed = Path(flagscale_deploy.__file__).parent / "templates"
    return installed if installed.is_dir() else installed.parents[1] / "templates"


def _error_text(error: Exception) -> str:
    if isinstance(error, jinja2.TemplateNotFound):
        return cut(f"there is no template {error.message}", LONGEST_ERROR)
    if isinstance(error, RecursionError | MemoryError):
        return "calls or includes itself too deeply"
    if isinstance(error, jinja2.TemplateError):
        return cut(error.message or type(error).__name__, LONGEST_ERROR)
    return cut(f"{type(error).__name__}: {error}", LONGEST_ERROR)


def _quoted(value: Any) -> str:
    if value is None:
        raise jinja2.UndefinedError("a value is None")
    if isinstance(value, list | tuple):
        return shell.join(value)
    return shell.quote(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _comment(value: object) -> shell.Raw:
    """Return text on one line, so that it cannot end the shell comment it stands in."""
    return shell.Raw(" ".join(str(value).split()))


_FILTERS: dict[str, Callable[[Any], str]] = {
    "raw": shell.Raw,
    "json": _json,
    "comment": _comment,
    "home": shell.quote_path,
}
