"""Check the files of every model on the hosts that load it: present, complete and the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flagscale_deploy.checks.conditions import engines, model_of, no_plan, on, passed
from flagscale_deploy.checks.model_memory import incomplete, weight_bytes
from flagscale_deploy.checks.types import Context, Finding
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.facts.model import ModelFiles
from flagscale_deploy.inventory.command_line import push
from flagscale_deploy.plan.software import odd_ones
from flagscale_deploy.support.units import counted, format_size

LOADED = (None, "auto", "hf", "safetensors", "pt", "npcache", "fastsafetensors", "bitsandbytes", "gguf", "mistral")
"""Values of `load-format` that read the files that checks look at."""


UNREAD = "it can be read on no host"


@dataclass(frozen=True)
class LoadedModel:
    """A model and its files on each host that loads it, drivers first."""

    spec: ModelSpec
    files: dict[str, ModelFiles]

    @property
    def sound(self) -> dict[str, ModelFiles]:
        """Return the files on the hosts where they can be read."""
        return {host: files for host, files in self.files.items() if not files.problem}


def loaded(context: Context) -> list[LoadedModel]:
    """Return every model that the probe looked for, once each."""
    hosts: dict[str, dict[str, None]] = {}
    for instance in engines(context):
        names = [instance.driver, *instance.possible_hosts]
        hosts.setdefault(instance.model, {}).update(dict.fromkeys(name for name in names if name in context.facts))
    models = {
        instance.model: model for instance in engines(context) if (model := model_of(context, instance)) is not None
    }
    probed = [
        LoadedModel(models[name], {host: files for host in names for files in context.facts[host].models
                              if files.path == models[name].model})
        for name, names in hosts.items()
        if name in models
    ]  # fmt: skip
    return [model for model in probed if model.files]


def in_pools(context: Context, model: LoadedModel) -> list[LoadedModel]:
    """Return a model as each of its pools serves it, with the files on the hosts of that pool."""
    hosts: dict[str, dict[str, None]] = {}
    specs: dict[str, ModelSpec] = {}
    for instance in engines(context):
        if instance.model == model.spec.name and (spec := model_of(context, instance)) is not None:
            specs[instance.label] = spec
            hosts.setdefault(instance.label, {}).update(dict.fromkeys([instance.driver, *instance.possible_hosts]))
    return [
        LoadedModel(specs[label], {host: model.files[host] for host in names if host in model.files})
        for label, names in hosts.items()
    ]


def not_looked_for(context: Context) -> str:
    """Return why there are no files to look at; "" if there are."""
    if why := no_plan(context):
        return why
    if not engines(context):
        return "no engine is planned"
    return "" if loaded(context) else "vLLM downloads models given by name: not checked"


def not_unread(context: Context) -> str:
    """Return why there are no files that can be read; "" if there are."""
    return not_looked_for(context) or ("" if any(model.sound for model in loaded(context)) else UNREAD)


def model_path(context: Context) -> Iterator[Finding]:
    """Check that a model's directory can be read on every host that loads it: Ray's workers load it too."""
    for model in loaded(context):
        path, where = model.spec.model, model.spec.where or "the model"
        for host, files in model.files.items():
            if files.problem:
                source = next((name for name in model.sound if name != host), None)
                here = push(context.inventory, "FOLDER", path, host)
                cure = copied(context, path, source, host) if source else (
                    f"copy it there{f' from this machine ({here})' if here else ''}, or correct {where}: "
                    + on(context, host, "ls", "-ld", path)
                )  # fmt: skip
                yield Finding(host, f"{path}: {files.problem}", "a model that can be read", cure)
        if model.sound:
            yield passed(f"{path} on {', '.join(model.sound)}")


def model_weights(context: Context) -> Iterator[Finding]:
    """Check that every weight file of the index is present and whole, no Git LFS pointer, and of the stated size."""
    for model in loaded(context):
        if not _reads_files(model.spec):
            continue
        for host, files in model.sound.items():
            if broken := incomplete(files):
                what = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
                yield Finding(host, f"{files.path}: {what}", "every file of the index, complete",
                              _copy(context, model, host))  # fmt: skip
            elif contradiction := _contradicted(files):
                yield Finding(host, f"{files.path}: {contradiction}", "the size in the index",
                              f"compare with the original: {on(context, host, 'ls', '-l', files.path)}",
                              "warning")  # fmt: skip
        whole = [weight_bytes(files) for files in model.sound.values() if not incomplete(files)]
        if any(whole):
            yield passed(f"{format_size(max(whole))} in {model.spec.model}")


def model_same(context: Context) -> Iterator[Finding]:
    """Check that configuration, tokenizer, code and index are equal on all hosts by hash, and weights by size."""
    for model in loaded(context):
        contents = _comparable(model)
        odd, _ = odd_ones({host: repr(sorted(content.items())) for host, content in contents.items()})
        usual = next((content for host, content in contents.items() if host not in odd), {})
        reference = next((host for host in contents if host not in odd), "")
        for host in odd:
            mine = contents[host]
            names = sorted(name for name in mine.keys() | usual.keys() if mine.get(name) != usual.get(name))
            differences = [_difference(name, mine, usual, reference) for name in names[:3]]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield Finding(host, f"{model.spec.model}: {', '.join(differences)}{more}", f"the same as on {reference}",
                          _sync(context, model, host, reference))  # fmt: skip
        if len(contents) > 1:
            yield passed(f"{counted(len(usual), 'file')} on {counted(len(contents), 'host')}")


def has_tokenizer(files: ModelFiles) -> bool:
    """Return whether there is a file from which a tokenizer can be made."""
    return any(_is_tokenizer(name) for name in files.hashes)


def _belongs_to_tokenizer(name: str) -> bool:
    beside = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
    return _is_tokenizer(name) or name in beside


def _is_tokenizer(name: str) -> bool:
    if name == "tokenizer_config.json":
        return False
    return name.startswith(("tokenizer", "tokenization", "vocab", "tekken")) or name.endswith(".model")


def _comparable(model: LoadedModel) -> dict[str, dict[str, str]]:
    """Return what is compared on each host, without what model-weights or model-tokenizer already reports."""
    sound = model.sound
    reported = {name for files in sound.values() for name in files.weights if files.weights[name] == 0}
    reported |= {name for files in sound.values() for name in files.torn}
    reported |= {name for files in sound.values() for name in files.indexed if name not in files.weights}
    named_alike = len({files.indexed for files in sound.values()}) == 1
    no_weights = any(not files.weights or (incomplete(files) and not named_alike) for files in sound.values())
    no_tokenizer = any(not has_tokenizer(files) for files in sound.values())
    template = {files.chat_template for files in sound.values()}
    contents = {}
    for host, files in sound.items():
        content = {name: str(hash_) for name, hash_ in files.hashes.items()}
        if no_tokenizer:
            content = {name: hash_ for name, hash_ in content.items() if not _belongs_to_tokenizer(name)}
        if len(template) > 1:
            content = {name: hash_ for name, hash_ in content.items() if not _brings_template(name)}
        if not no_weights:
            content |= {name: f"{bytes_} bytes" for name, bytes_ in files.weights.items() if name not in reported}
        contents[host] = content
    return contents


def _brings_template(name: str) -> bool:
    return name.startswith("chat_template") or name.endswith(".jinja") or name == "tokenizer_config.json"


def _difference(name: str, mine: dict[str, str], usual: dict[str, str], reference: str) -> str:
    if name not in mine:
        return f"{name} is missing"
    if name not in usual:
        return f"{name} is not on {reference}"
    sizes = f" ({mine[name]} for {usual[name]})" if mine[name].endswith(" bytes") else ""
    return f"{name} differs{sizes}"


def _contradicted(files: ModelFiles) -> str:
    """Return how the files' size contradicts the index, although they are whole by their own headers."""
    total = weight_bytes(files)
    return f"{total} bytes, {files.total} in its index" if files.total is not None and total < files.total else ""


def _copy(context: Context, model: LoadedModel, host: str) -> str:
    source = next((name for name, files in model.sound.items() if name != host and not incomplete(files)), None)
    if source:
        return copied(context, model.spec.model, source, host)
    if model.files[host].pointers:
        return on(context, host, "git", "-C", model.spec.model, "lfs", "pull") + "   (on every host)"
    return "download the model again on all hosts"


def copied(context: Context, path: str, source: str, host: str) -> str:
    """Return a command line that copies a model from one host to another: `push`, else rsync."""
    folder = path.rstrip("/")
    ours = push(context.inventory, f"{source}:{folder}", folder, host)
    to = f"{context.inventory[host].address}:{folder}/"
    return ours or on(context, source, "rsync", "-a", f"{folder}/", to)


def _sync(context: Context, model: LoadedModel, host: str, source: str) -> str:
    path = model.spec.model.rstrip("/") + "/"
    return on(context, source, "rsync", "-a", "--delete", path, f"{context.inventory[host].address}:{path}")


def _reads_files(model: ModelSpec) -> bool:
    return model.engine_args.get("load-format") in LOADED
