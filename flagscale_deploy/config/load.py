"""Load a serve configuration of any dialect as one `ServeSpec`: read, compose, override, interpolate, translate."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flagscale_deploy.config.compose import compose
from flagscale_deploy.config.interpolation import interpolate
from flagscale_deploy.config.overrides import Override, apply_overrides, parse_overrides
from flagscale_deploy.config.schema.places import Document
from flagscale_deploy.config.source import parse_yaml
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.config.translate import translate
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.secrets import Secret
from flagscale_deploy.support.file_kinds import FileKind, kind_of_document, kind_of_text, refuse_other_kind
from flagscale_deploy.support.input_files import read_text
from flagscale_deploy.support.learn_secrets import quoting_no_secret
from flagscale_deploy.support.yaml import refuse_bombs

MOST_LEVELS = 48
"""Levels of a file, of the groups above it, and of the overrides in it."""


@quoting_no_secret
def load_spec(
    source: Path | str | Document,
    overrides: Sequence[str] = (),
    name: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> ServeSpec:
    """Return the specification that a file, or a document, and the `key=value` words of the command line ask for.

    `name` is the deployment's (else deploy.name, experiment.exp_name, the file's stem); `environ` is what `${oc.env:…}`
    and `deploy.secrets` see (else the process's). Raises InputError with every fault of the file, each with its place.
    """
    words = parse_overrides(overrides)
    path = Path(source.file) if isinstance(source, Document) else Path(source)
    # A name of a file may read as a number: serve=2, serve=2.5.
    choices = {word.key: str(word.value) for word in words if _names_a_file(word)}
    picked = dict(choices)
    try:
        tree, places = compose(source if isinstance(source, Document) else path, picked)
    except InputError:
        if os.path.isfile(path):  # no pipe, which can be read once
            refuse_other_kind(_kind_of(read_text(path), str(path)), FileKind.SERVE, str(path))
        raise
    refuse_other_kind(kind_of_document(tree), FileKind.SERVE, str(path))
    taken = choices.keys() - picked.keys()
    _refuse(apply_overrides(tree, [word for word in words if word.key not in taken], places))
    refuse_bombs(tree, places.where(()), MOST_LEVELS)
    environment = os.environ if environ is None else environ
    shown: list[str] = []
    resolved, faults = interpolate(tree, environment, shown)
    _refuse(places.locate(faults))
    refuse_bombs(resolved, places.where(()), MOST_LEVELS)
    spec, wrong = translate(resolved, path, name, environment, places)
    _refuse(wrong)
    spec = replace(spec, tree=tree, resolved=resolved, taken_secrets=tuple(map(Secret, shown)))
    if spec.holds_secret(spec.name):
        problem = "the deployment's name holds a secret variable's value: every user of a host sees it"
        _refuse([Fault(spec.where("experiment", "exp_name"), problem, "name it otherwise, or pass --name")])
    return spec


def _kind_of(text: str, source: str) -> FileKind | None:
    try:
        document = parse_yaml(text, source)
    except InputError:
        return kind_of_text(text, source)
    return kind_of_document(document) if isinstance(document, list | dict) else kind_of_text(text, source)


def _refuse(faults: Sequence[Fault]) -> None:
    if faults:
        raise InputError(faults)


def _names_a_file(word: Override) -> bool:
    return word.sign != "~" and isinstance(word.value, str | int | float) and not isinstance(word.value, bool)
