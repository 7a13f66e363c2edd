"""Look at a model on this host: its configuration, the hashes of its small files, the sizes of its weights."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Dict, Iterable, List

from flagscale_deploy.remote.engine.weights import PART, pointers, siblings, sizes, torn, total, wanted
from flagscale_deploy.remote.system import files, json_files
from flagscale_deploy.remote.system.background import Background

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.probe import ProbedModel

SECONDS = 15.0
"""How long to wait for a file system: one of a server that is gone never answers."""

CONFIG_BYTES = 1 << 20
HASHED_BYTES, HASHED_BYTES_IN_ALL = 32 << 20, 64 << 20
HEADER_BYTES = 16 << 20
MOST_FILES = 10_000
DIGITS, DEPTH = 19, 64
"""The longest whole number and the deepest nesting of a configuration that a reply takes."""

SMALL = re.compile(
    r"(?:config|generation_config|params|tekken|special_tokens_map|added_tokens|preprocessor_config|processor_config)"
    r"\.json|(?:tokenizer|vocab|merges|chat_template).*|.*\.(?:py|jinja|index\.json)"
)
WEIGHTS = re.compile(r".*\.(?:safetensors|bin|pt|gguf)")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def observe(paths: Iterable[str]) -> List[ProbedModel]:
    """Look at every path, all at once. SECONDS at most."""
    looks = [(path, Background(look, path)) for path in paths]
    models = []
    for path, looking in looks:
        try:
            models.append(looking.result(SECONDS))
        except TimeoutError:
            models.append(_problem(path, f"its file system did not answer within {SECONDS:.0f} s"))
    return models


def look(path: str) -> ProbedModel:
    """Look at a model's directory or file; a relative path counts from the home directory, where engines start."""
    place = os.path.join(os.path.expanduser("~"), path)
    if path.startswith("~"):
        return _problem(path, f"vLLM does not read ~: write {os.path.expanduser(path)}")
    try:
        return _directory(path, place) if os.path.isdir(place) else _file(path, place)
    except FileNotFoundError as error:
        return _problem(path, "no such file or directory" if _is(error, place) else f"{_name(error)} is missing")
    except PermissionError as error:
        return _problem(path, "permission denied" + ("" if _is(error, place) else f": {_name(error)}"))
    except OSError as error:
        return _problem(path, f"{_name(error)}: {error.strerror or error}")
    except ValueError as error:
        return _problem(path, str(error))


def _directory(path: str, place: str) -> ProbedModel:
    names = sorted(os.listdir(place))
    if len(names) > MOST_FILES:
        return _problem(path, f"it holds {len(names)} files; a model has {MOST_FILES} at most")
    if "config.json" not in names and "params.json" not in names:  # the latter is Mistral's own format
        return _problem(path, "it has no config.json")
    config = _sendable(_read_json(place, "config.json")) if "config.json" in names else {}
    index = next((_read_json(place, name) for name in INDEXES if name in names), {})
    weights = sizes(place, [name for name in names if WEIGHTS.fullmatch(name)])
    indexed = wanted(index, names)
    if len(indexed) > MOST_FILES:
        return _problem(path, f"its index names {len(indexed)} files; a model has {MOST_FILES} at most")
    return {
        **_nothing(path),
        "config": config,
        "hashes": _hashes(place, [name for name in names if SMALL.fullmatch(name)]),
        "weights": weights,
        "indexed": indexed,
        "total": total(index),
        "torn": torn(place, weights),
        "pointers": pointers(place, weights),
        "chat_template": _has_template(place, names),
    }


def _file(path: str, place: str) -> ProbedModel:
    """Look at a model in a file, or in several (`-00001-of-00003.gguf`): every one counts as indexed."""
    directory, name = os.path.split(place)
    part = PART.fullmatch(name)
    parts = siblings(part) if part and part[4] == "gguf" and int(part[3]) <= MOST_FILES else [name]
    template = b"tokenizer.chat_template" in files.read_start(place, HEADER_BYTES, follow=True)
    there = [part for part in parts if os.path.exists(os.path.join(directory, part))]
    weights = sizes(directory, there)
    return {
        **_nothing(path),
        "weights": weights,
        "indexed": parts,
        "torn": torn(directory, weights),
        "pointers": pointers(directory, weights),
        "chat_template": template,
    }


def _read_json(place: str, name: str) -> Dict[str, object]:
    limit = CONFIG_BYTES if name == "config.json" else HASHED_BYTES
    content = files.read_start(os.path.join(place, name), limit + 1, follow=True)
    if len(content) > limit:
        raise ValueError(f"{name} is larger than {limit >> 20} MiB")
    try:
        parsed = json_files.parse(content)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{name} is not a JSON object")
    return parsed


def _sendable(value: Any, depth: int = 0) -> Any:
    """Return a configuration with None for numbers of more than 19 digits. Raises ValueError if nested too deeply."""
    if depth > DEPTH:
        raise ValueError("config.json is nested deeper than %d levels" % DEPTH)
    if isinstance(value, dict):
        return {name: _sendable(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [_sendable(inner, depth + 1) for inner in value]
    return None if type(value) is int and len(str(value)) > DIGITS else value


def _hashes(place: str, names: Iterable[str]) -> Dict[str, str]:
    """Return SHA-256 by name; of what would take too long to read, the size."""
    import hashlib  # not where no model is asked after: it loads OpenSSL

    hashes, left = {}, HASHED_BYTES_IN_ALL
    for name in names:
        path = os.path.join(place, name)
        if not os.path.isfile(path):
            continue
        size = os.stat(path).st_size
        if size > min(HASHED_BYTES, left):
            hashes[name] = f"{size} bytes"
            continue
        left -= size
        hashes[name] = hashlib.sha256(files.read_start(path, HASHED_BYTES, follow=True)).hexdigest()
    return hashes


def _has_template(place: str, names: List[str]) -> bool:
    if any(name.endswith(".jinja") or name == "chat_template.json" for name in names):
        return True
    tokenizer = _read_json(place, "tokenizer_config.json") if "tokenizer_config.json" in names else {}
    return bool(tokenizer.get("chat_template"))


def _nothing(path: str) -> ProbedModel:
    return {
        "path": path,
        "problem": "",
        "config": {},
        "hashes": {},
        "weights": {},
        "indexed": [],
        "total": None,
        "torn": {},
        "pointers": [],
        "chat_template": False,
    }


def _problem(path: str, problem: str) -> ProbedModel:
    return {**_nothing(path), "problem": problem}


def _is(error: OSError, place: str) -> bool:
    return str(error.filename) == place


def _name(error: OSError) -> str:
    return os.path.basename(str(error.filename))
