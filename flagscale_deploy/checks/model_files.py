"""The files of every model on the hosts that load it: there, complete and the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flagscale_deploy.checks.conditions import engines, model_of, no_plan, on, passed
from flagscale_deploy.checks.model import Finding, Scene
from flagscale_deploy.checks.model_memory import incomplete, weight_bytes
from flagscale_deploy.config.spec import ModelSpec
from flagscale_deploy.facts.model import ModelFiles
from flagscale_deploy.plan.software import odd_ones
from flagscale_deploy.support.units import format_size

LOADED = (None, "auto", "hf", "safetensors", "pt", "npcache", "fastsafetensors", "bitsandbytes", "gguf", "mistral")
"""Values of `load-format` that read the files that are looked at."""


UNREAD = "no host where it can be read"


@dataclass(frozen=True)
class Loaded:
    """A model, and its files on each host that loads it, drivers first."""

    model: ModelSpec
    files: dict[str, ModelFiles]

    @property
    def sound(self) -> dict[str, ModelFiles]:
        return {host: each for host, each in self.files.items() if not each.problem}


def loaded(scene: Scene) -> list[Loaded]:
    """The models that were looked for, once each."""
    hosts: dict[str, dict[str, None]] = {}
    for instance in engines(scene):
        names = [instance.driver, *instance.hosts]
        hosts.setdefault(instance.model, {}).update(dict.fromkeys(name for name in names if name in scene.facts))
    models = {each.model: found for each in engines(scene) if (found := model_of(scene, each)) is not None}
    answered = [
        Loaded(models[name], {host: each for host in names for each in scene.facts[host].models
                              if each.path == models[name].model})
        for name, names in hosts.items()
        if name in models
    ]  # fmt: skip
    return [each for each in answered if each.files]


def not_looked_for(scene: Scene) -> str:
    """Why there are no files to look at."""
    if why := no_plan(scene):
        return why
    if not engines(scene):
        return "no engine is planned"
    return "" if loaded(scene) else "models by name are fetched by vLLM: not looked at"


def not_unread(scene: Scene) -> str:
    """Why there are no files that could be read."""
    return not_looked_for(scene) or ("" if any(each.sound for each in loaded(scene)) else UNREAD)


def model_path(scene: Scene) -> Iterator[Finding]:
    """Whether a model's directory is on every host that loads it, and can be read: Ray's workers load it too."""
    for each in loaded(scene):
        path = each.model.model
        for host, files in each.files.items():
            if files.problem:
                source = next((name for name in each.sound if name != host), None)
                to = f"{scene.inventory[host].address}:{path.rstrip('/')}/"
                cure = on(scene, source, "rsync", "-a", f"{path.rstrip('/')}/", to) if source else (
                    f"put it there, or correct {each.model.where or 'the model'}: {on(scene, host, 'ls', '-ld', path)}"
                )  # fmt: skip
                yield Finding(host, f"{path}: {files.problem}", "a model that can be read", cure)
        if each.sound:
            yield passed(f"{path} on {', '.join(each.sound)}")


def model_weights(scene: Scene) -> Iterator[Finding]:
    """Whether the weights are complete: every file of the index is there, whole, and no pointer of Git LFS, and
    together they have the size that the index says."""
    for each in loaded(scene):
        if not _reads_files(each.model):
            continue
        for host, files in each.sound.items():
            if broken := incomplete(files):
                what = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
                yield Finding(host, f"{files.path}: {what}", "every file of the index, and whole",
                              _copy(scene, each, host))  # fmt: skip
            elif found := _contradicted(files):
                yield Finding(host, f"{files.path}: {found}", "the size that the index says",
                              f"compare with where it comes from: {on(scene, host, 'ls', '-l', files.path)}",
                              "warning")  # fmt: skip
        whole = [weight_bytes(files) for files in each.sound.values() if not incomplete(files)]
        if any(whole):
            yield passed(f"{format_size(max(whole))} in {each.model.model}")


def model_same(scene: Scene) -> Iterator[Finding]:
    """Whether configuration, tokenizer, code and index are the same on all hosts by hash, and weights by size."""
    for each in loaded(scene):
        contents = _comparable(each)
        odd, _ = odd_ones({host: repr(sorted(content.items())) for host, content in contents.items()})
        usual = next((content for host, content in contents.items() if host not in odd), {})
        reference = next((host for host in contents if host not in odd), "")
        for host in odd:
            mine = contents[host]
            names = sorted(name for name in mine.keys() | usual.keys() if mine.get(name) != usual.get(name))
            said = [_difference(name, mine, usual, reference) for name in names[:3]]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield Finding(host, f"{each.model.model}: {', '.join(said)}{more}", f"the same as on {reference}",
                          _sync(scene, each, host, reference))  # fmt: skip
        if len(contents) > 1:
            yield passed(f"{len(usual)} files on {len(contents)} hosts")


def has_tokenizer(files: ModelFiles) -> bool:
    """Whether there is a file that a tokenizer can be made from."""
    return any(_is_tokenizer(name) for name in files.hashes)


def _belongs_to_tokenizer(name: str) -> bool:
    beside = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
    return _is_tokenizer(name) or name in beside


def _is_tokenizer(name: str) -> bool:
    if name == "tokenizer_config.json":
        return False
    return name.startswith(("tokenizer", "tokenization", "vocab", "tekken")) or name.endswith(".model")


def _comparable(each: Loaded) -> dict[str, dict[str, str]]:
    """What is compared of each host: what model-weights or model-tokenizer tells of one host is left out of all."""
    sound = each.sound
    told = {name for files in sound.values() for name in files.weights if files.weights[name] == 0}
    told |= {name for files in sound.values() for name in files.torn}
    told |= {name for files in sound.values() for name in files.indexed if name not in files.weights}
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
            content |= {name: f"{bytes_} bytes" for name, bytes_ in files.weights.items() if name not in told}
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
    """What the index says otherwise of files that are whole by their own headers: it may be the one that is wrong."""
    found = weight_bytes(files)
    return f"{found} bytes, {files.total} by its index" if files.total is not None and found < files.total else ""


def _copy(scene: Scene, each: Loaded, host: str) -> str:
    source = next((name for name, files in each.sound.items() if name != host and not incomplete(files)), None)
    if source:
        return _sync(scene, each, host, source)
    if each.files[host].pointers:
        return on(scene, host, "git", "-C", each.model.model, "lfs", "pull") + "   (on every host)"
    return "download the model again, to all hosts"


def _sync(scene: Scene, each: Loaded, host: str, source: str) -> str:
    path = each.model.model.rstrip("/") + "/"
    return on(scene, source, "rsync", "-a", "--delete", path, f"{scene.inventory[host].address}:{path}")


def _reads_files(model: ModelSpec) -> bool:
    return model.engine_args.get("load-format") in LOADED
