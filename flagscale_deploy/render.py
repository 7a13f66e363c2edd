"""Jinja over `templates/`: scripts from values, every value quoted for the shell unless the template says otherwise."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from flagscale_deploy import shell
from flagscale_deploy.errors import InputError

SUFFIX = ".j2"


@dataclass(frozen=True)
class Templates:
    """Template sources by name (`ray_head.sh.j2`), so that rendering reads no file."""

    sources: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Changes with any template's text."""
        return hashlib.sha256(repr(sorted(self.sources.items())).encode()).hexdigest()

    def render(self, name: str, **context: Any) -> str:
        """One script. InputError for a template that is missing, broken, or asks for a value we don't have."""
        environment = jinja2.Environment(
            loader=jinja2.DictLoader(dict(self.sources)),
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
        try:
            return environment.get_template(name).render(**context)
        except jinja2.TemplateSyntaxError as error:
            raise InputError.at(f"{error.name}:{error.lineno}", error.message or "syntax error") from error
        except (jinja2.UndefinedError, jinja2.TemplateNotFound) as error:
            raise InputError.at(name, f"template: {error.message}", "compare with the packaged template") from error


def load_templates(override: Path | None = None) -> Templates:
    """The packaged templates, those of the directory `override` (`--templates DIR`) taking their place by name."""
    sources = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in importlib.resources.files("flagscale_deploy.templates").iterdir()
        if entry.name.endswith(SUFFIX)
    }
    if override is not None:
        if not override.is_dir():
            raise InputError.at(str(override), "templates: no such directory")
        for path in sorted(override.glob(f"*{SUFFIX}")):
            if path.name not in sources:
                known = ", ".join(sorted(sources))
                raise InputError.at(str(path), "overrides no template", f"the templates are: {known}")
            sources[path.name] = path.read_text(encoding="utf-8")
    return Templates(sources)


def _quoted(value: Any) -> str:
    if value is None:
        raise jinja2.UndefinedError("a value is None")
    if isinstance(value, list | tuple):
        return shell.join(value)
    return shell.quote(value)


def _home(path: str) -> shell.Raw:
    """A path whose leading `~/` means the home directory, as a shell user expects it."""
    if path.startswith("~/"):
        return shell.Raw(f'"$HOME"/{shell.quote(path[2:])}')
    return shell.Raw(shell.quote(path))


def _comment(value: object) -> shell.Raw:
    """Text that cannot end the comment it stands in."""
    return shell.Raw(" ".join(str(value).split()))
