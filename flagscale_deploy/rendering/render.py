"""Render `templates/` with Jinja; every value is quoted for the shell unless the template says otherwise."""

from __future__ import annotations

import functools
import hashlib
import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

import flagscale_deploy
from flagscale_deploy.errors import InputError
from flagscale_deploy.support import shell

SUFFIX = ".j2"

_WRONG = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, jinja2.TemplateError)
"""What a template can raise: Python's own errors in its expressions are not wrapped."""


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
            return self._environment.get_template(name).render(**context)
        except _WRONG as error:
            raise InputError.at(
                self._place(error, name), f"template: {_error_text(error)}", "compare with the packaged template"
            ) from error

    @functools.cached_property
    def _environment(self) -> jinja2.Environment:
        """Return the Jinja environment, which caches compiled templates for all hosts of a plan."""
        environment = jinja2.Environment(
            loader=jinja2.FunctionLoader(self._load),
            undefined=jinja2.StrictUndefined,
            finalize=_quoted,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,  # it is shell, not HTML: `finalize` quotes
        )
        environment.filters["raw"] = shell.Raw
        environment.filters["json"] = functools.partial(json.dumps, ensure_ascii=False)
        environment.filters["comment"] = _comment
        environment.filters["home"] = _home
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
        if not override.is_dir():
            raise InputError.at(str(override), "templates: no such directory")
        for path in sorted(override.glob(f"*{SUFFIX}")):
            if path.name not in sources:
                names = ", ".join(sorted(sources))
                raise InputError.at(str(path), "overrides no template", f"the templates are: {names}")
            sources[path.name], files[path.name] = _read(path), str(path)
    return Templates(sources, files)


def _packaged() -> Path:
    """Return the folder of our own templates: in the installed package, or at the top of a clone."""
    installed = Path(flagscale_deploy.__file__).parent / "templates"
    return installed if installed.is_dir() else installed.parents[1] / "templates"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError.at(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError.at(str(path), f"is not UTF-8 (byte {error.start})", "save it as UTF-8") from error


def _error_text(error: Exception) -> str:
    if isinstance(error, jinja2.TemplateNotFound):
        return f"there is no template {error.message}"
    if isinstance(error, jinja2.TemplateError):
        return error.message or type(error).__name__
    return f"{type(error).__name__}: {error}"


def _quoted(value: Any) -> str:
    if value is None:
        raise jinja2.UndefinedError("a value is None")
    if isinstance(value, list | tuple):
        return shell.join(value)
    return shell.quote(value)


def _home(path: str) -> shell.Raw:
    """Quote a path; a leading `~/` means the home directory, as in a shell."""
    if path.startswith("~/"):
        return shell.Raw(f'"$HOME"/{shell.quote(path[2:])}')
    return shell.Raw(shell.quote(path))


def _comment(value: object) -> shell.Raw:
    """Return text on one line, so that it cannot end the shell comment it stands in."""
    return shell.Raw(" ".join(str(value).split()))
