"""Parse a recipe's `vllm serve` command back into a model and its flags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flagscale_deploy.config.schema.short_names import flag_name
from flagscale_deploy.config.source import WrittenFloat, parse_word
from flagscale_deploy.errors import InputError
from flagscale_deploy.plan.vllm import is_optimization_level
from flagscale_deploy.plan.vllm_flags import BOOLEANS, KNOWN, SWITCHES, WORD_LISTS
from flagscale_deploy.recipes.dropped import FLAGS
from flagscale_deploy.recipes.name import MODEL
from flagscale_deploy.recipes.refused import OTHER, refuse_flag, refuse_placeholder, refuse_value
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.support.value import Tree, Value
from flagscale_deploy.support.yaml import refuse_bombs

MOST_WORDS = 500
LONGEST_WORD, LONGEST_COMMAND = 20_000, 200_000
"""Characters of a word, and of all words of a command."""
_START = ("vllm", "serve")
_FLAG = re.compile(r"--?[A-Za-z]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Command:
    """A command line. `flags` have vLLM's long names, dashed and without `--`, in the recipe's order."""

    model: str
    flags: Tree = field(default_factory=dict)


def read_command(words: object, where: str) -> Command:
    """Return the command that a list of words is; `where` is its file and key. Raises InputError."""
    argv = _words(words, where)
    if tuple(argv[:2]) != _START or len(argv) < 3 or not MODEL.fullmatch(argv[2]):
        start = quoted(" ".join(argv[:3]))
        raise InputError.at(where, f"found {start}, expected vllm serve ORG/MODEL", OTHER)
    flags: Tree = {}
    for place, flag, value in _flags(argv[3:], where):
        refuse_placeholder(flag, place)
        refuse_flag(flag, place)
        if flag not in FLAGS:
            refuse_value(flag, value, place)
        flags[flag] = value  # of a flag that is given twice, vLLM takes the last
    return Command(argv[2], flags)


def _words(words: object, where: str) -> list[str]:
    """Return the words of a command. Raises InputError where one cannot be a word."""
    if not isinstance(words, list) or len(words) > MOST_WORDS:
        held = f"{len(words):,} words" if isinstance(words, list) else quoted(words)
        raise InputError.at(where, f"found {held}, expected a list of at most {MOST_WORDS} words", OTHER)
    texts = [read_text(word, f"{where}.{index}") for index, word in enumerate(words)]
    if sum(map(len, texts)) > LONGEST_COMMAND:
        raise InputError.at(where, f"found more than {LONGEST_COMMAND:,} characters", OTHER)
    return texts


def read_text(text: object, where: str) -> str:
    """Return a text that a program can be given. Raises InputError for anything else."""
    if not isinstance(text, str) or len(text) > LONGEST_WORD or _CONTROL.search(text):
        problem = f"found {quoted(text)}, expected text of at most {LONGEST_WORD:,} printable characters"
        raise InputError.at(where, problem, OTHER)
    return text


def _flags(words: Sequence[str], where: str) -> Iterator[tuple[str, str, Value]]:
    """Yield the place, name and value of each flag."""
    at = 0
    while at < len(words):
        place, word = f"{where}.{at + 3}", words[at]
        if not _FLAG.match(word):
            raise InputError.at(place, f"found {quoted(word)}, expected a flag", OTHER)
        at += 1
        name, equals, text = word.partition("=")
        values = [text] if equals else name.split()[1:]  # one recipe writes "--max-model-len auto" as one word
        flag = flag_name(name.split()[0])
        if not values and not _is_bare(flag):
            most = len(words) if flag in WORD_LISTS else 1
            while at < len(words) and len(values) < most and not _FLAG.match(words[at]):
                values.append(words[at])
                at += 1
        yield (place, *_read(flag, values, place))


def _is_bare(flag: str) -> bool:
    """Return whether vLLM takes a flag without a value."""
    return flag in BOOLEANS | SWITCHES or _switched_off(flag) is not None or is_optimization_level(flag)


def _switched_off(flag: str) -> str | None:
    """Return `enable-prefix-caching` for `no-enable-prefix-caching`, None for a flag that switches nothing off."""
    name = flag.removeprefix("no-")
    return name if name != flag and name in BOOLEANS else None


def _read(flag: str, texts: list[str], place: str) -> tuple[str, Value]:
    """Return a flag's name and value as a serve YAML has them."""
    off = _switched_off(flag)
    if off is not None:
        return off, False
    if not texts and not _is_bare(flag) and flag.partition(".")[0] in KNOWN:
        raise InputError.at(place, f"found --{flag} alone, expected a value after it", OTHER)
    values = [text if flag in FLAGS else _value(text, place) for text in texts]
    return flag, values[0] if len(values) == 1 else values or True


def _value(text: str, place: str) -> Value:
    """Return what a word of a command line means: a number, a JSON object, else text."""
    refuse_placeholder(text, place)
    if text[:1] == "{":
        return _json_object(text, place)
    value = parse_word(text, place)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and str(value) == text else text


def _json_object(text: str, place: str) -> Value:
    def once(pairs: list[tuple[str, Value]]) -> Tree:
        keys = [key for key, _ in pairs]
        if len({*keys}) < len(keys):
            raise ValueError
        return dict(pairs)

    try:
        value: Value = json.loads(text, object_pairs_hook=once, parse_float=WrittenFloat, parse_constant=_refuse)
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError.at(place, f"found {quoted(text)}, expected a JSON object", OTHER) from error
    refuse_bombs(value, place)
    return value


def _refuse(_constant: str) -> None:
    raise ValueError
