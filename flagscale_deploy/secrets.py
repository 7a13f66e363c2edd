"""Secrets: names that mark them, a wrapper that hides its value, and a redactor for foreign text."""

from __future__ import annotations

import base64
import hmac
import json
import re
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NoReturn
from urllib.parse import quote, quote_plus

from flagscale_deploy.text import bare

HIDDEN = "[REDACTED]"

_SECRET_NAME = re.compile(
    r"(?:(?:^|_)(?:KEYS?|AUTH|AUTHORIZATION|COOKIES?|PWD)|(?<!^ALLOW_)CREDENTIALS?"
    r"|(?:API_?KEY|PASSWORD|PASSPHRASE|SECRET)S?|TOKEN|PASSWD)(?:_?\d{1,3})?$"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_SECRETS = frozenset(("PWD", "OLDPWD"))
_SHORTEST = 4
"""Shorter values are not hidden: they protect nothing, and `DISABLE_TOKEN: 1` must not hide every 1 in a log."""
LONGEST = 16 << 10
"""Characters of a secret. The ends of a longer value are known, so that it isn't printed from its beginning."""
KNOWN_END = 1 << 10
ENCODED_AGAIN = 4 << 10
DEEP_CHARACTERS, MOST_CHARACTERS = 2 << 20, 16 << 20
"""Up to how many characters of forms each value gets all of its forms, and up to how many those of one encoding."""
_HEAD = 32
"""Forms are looked up by so many of their first characters."""


def is_secret_name(name: str) -> bool:
    """Return whether a variable or flag of this name is secret, like `HF_TOKEN` and `api-key`, but not `tokenizer`."""
    name = _HUMP.sub("_", name.lstrip("-")[-200:]).replace("-", "_").replace(".", "_").upper()
    return name not in _NO_SECRETS and _SECRET_NAME.search(name) is not None


class Secret:
    """A value that only `reveal()` shows.

    It is not a `str`, so neither `json.dumps` nor `"".join` can write it by accident, and it cannot be pickled.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value, for the file it is sent in and for `Redactor.add` only."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __deepcopy__(self, _memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret must not be written anywhere")


class Redactor:
    """Hides secret values in any text, also in the forms that tools make of them.

    These forms are shell-quoted, URL-encoded, JSON-escaped, base64 (at any alignment, so inside `user:secret` too), and
    each of them inside another. It may be used from several threads. Text has to come in whole lines: a secret cut in
    two by a chunk's end is not found.
    """

    def __init__(self, values: Iterable[str | Secret] = ()) -> None:
        self._lock = threading.Lock()
        self._forms: dict[str, dict[str, None]] = {}
        self._encoded: set[str] = set()
        self._longest = self._size = 0
        self._pattern: re.Pattern[str] | None = None
        self._lengths: tuple[int, ...] = ()
        self._stale = False
        self.has_blanks = False
        """Whether blanks may stand within a value: text has to come in whole lines then, else in whole words."""
        self.add(*values)

    def add(self, *values: str | Secret, quoted_only: bool = False) -> None:
        """Hide values of at least 4 characters from now on; of several lines, each is also hidden by itself.

        With `quoted_only` in the forms that messages quote them in, and not in base64 and the like. Of a value longer
        than `LONGEST`, only its ends are hidden; of very many values, fewer forms are.
        """
        texts = [_ends(value.reveal() if isinstance(value, Secret) else value) for value in values]
        parts = dict.fromkeys(part for whole in texts for text in whole for part in (text, text.strip()))
        parts |= dict.fromkeys(part.strip() for whole in texts for text in whole for part in text.splitlines())
        with self._lock:
            self.has_blanks |= any(len(part.split(None, 1)) > 1 for part in parts)
            for part in parts:
                if len(part) >= _SHORTEST and part not in self._encoded:
                    self._add_forms({part, *_shell(part), *_escaped(part)} if quoted_only else self._affordable(part))

    def _affordable(self, part: str) -> set[str]:
        self._encoded.add(part)
        if self._size > MOST_CHARACTERS:
            return {part}
        return _forms(part) if self._size < DEEP_CHARACTERS else _once(part) | {part}

    def _add_forms(self, forms: Iterable[str]) -> None:
        for form in forms:
            same_head = self._forms.setdefault(form[:_HEAD], {})
            if form not in same_head:
                same_head[form] = None
                self._size += len(form)
                self._longest = max(self._longest, len(form))
                self._stale = True

    def redact(self, text: str) -> str:
        """Return the text with `[REDACTED]` in place of each value in any of its forms, and of keys by their look.

        It has as many lines as before: what is on the others stands where it did.
        """
        pieces, done = [], 0
        for start, end in self._spans(text):
            pieces += [text[done:start], _hidden(text[start:end])]
            done = end
        return by_look("".join((*pieces, text[done:])) if pieces else text)

    def _spans(self, text: str, at: int = 0) -> Iterator[tuple[int, int]]:
        """Yield where values stand, the longest form at each place."""
        if self._stale:
            with self._lock:
                self._pattern = _beginnings(self._forms)
                self._lengths = tuple({len(head) for head in self._forms})
                self._stale = False
        while self._pattern and (match := self._pattern.search(text, at)):
            at = match.start()
            heads = (text[at : at + length] for length in self._lengths)
            forms = (form for head in heads for form in tuple(self._forms.get(head, ())))
            if length := max((len(form) for form in forms if text.startswith(form, at)), default=0):
                yield at, at + length
            at += length or 1

    def seen(self, text: str) -> str:
        """Return the text as a terminal would show it, if only that shows a secret; else the text as it is.

        Characters that show nothing, and escape sequences, would hide the secret that they stand in.
        """
        if text.isascii() and text.isprintable():
            return text
        shown = bare(text)
        if shown == text or (hidden := self.redact(shown)) == shown:
            return text
        return text if hidden.count(HIDDEN) <= self.redact(text).count(HIDDEN) else shown

    @property
    def longest(self) -> int:
        """Return how many characters at the end of a text may be the beginning of a secret."""
        return max(_LONGEST_LOOK, self._longest)

    def cut(self, text: str, at: int) -> int:
        """Return the last position up to `at` that is not within a secret."""
        before = max(0, at - self.longest)
        looks = ((match.span() for match in pattern.finditer(text, before)) for _, pattern in _LOOKS)
        for spans in (self._spans(text, before), *looks):
            for start, end in spans:
                if start >= at:
                    break
                at = start if end > at else at
        return at


_LOOKS = tuple(
    (mark, re.compile(pattern, re.IGNORECASE if mark == "?" else 0))
    for mark, pattern in (
        ("hf_", r"hf_[A-Za-z0-9]{16,}"),
        ("sk-", r"sk-(?<![A-Za-z0-9]sk-)(?=[A-Za-z_-]{0,60}\d)[\w-]{20,}"),
        ("gh", r"gh[oprsu]_[A-Za-z0-9]{20,}"),
        ("github_pat_", r"github_pat_\w{20,}"),
        ("glpat-", r"glpat-[\w-]{16,}"),
        ("xox", r"xox[abprs]-[\w-]{10,}"),
        ("nvapi-", r"nvapi-[\w-]{20,}"),
        ("AKIA", r"AKIA[0-9A-Z]{16}"),
        ("ASIA", r"ASIA[0-9A-Z]{16}"),
        ("AIza", r"AIza[\w-]{30,}"),
        ("eyJ", r"eyJ(?<![\w-]eyJ)[\w-]{8,2000}\.[\w-]{8,}\.[\w-]{8,}"),
        (
            "PRIVATE KEY-----",
            r"-{5}BEGIN [A-Z ]{0,30}PRIVATE KEY-{5}"
            r"(?:[^-]{0,16000}-{5}END [A-Z ]{0,30}KEY-{5}|[A-Za-z0-9+/=\s\\'\",]{0,16000})",
        ),
        ("earer ", r"(?<=earer )(?=[A-Za-z.~+/=_-]{0,60}\d|\S{20})[\w.~+/=-]{8,}"),
        ("Basic ", r"(?<=Basic )[A-Za-z0-9+/=]{8,}"),
        ("://", r"(://)[^\s/:@'\"]{0,100}:(?!\d{1,5}/)[^\s@'\"]{1,200}(?=@)"),
        ("?", r"([?&][\w.-]{0,30}(?:token|key|secret|password|passwd|signature|sig|auth)=)[^\s&#'\"<>\\]{4,}"),
    )
)
"""What keys look like, whatever their names are: a text that each contains, and its pattern. JWT, PEM, HTTP, URLs."""


_LONGEST_LOOK = 20_000


def by_look(text: str) -> str:
    """Return the text with `[REDACTED]` in place of what looks like a key or a password."""
    for mark, pattern in _LOOKS:
        if mark in text:
            text = pattern.sub(lambda match: (match[1] if match.re.groups else "") + _hidden(match[0]), text)
    return text


def _hidden(text: str) -> str:
    """Return what stands in place of a text, on as many lines."""
    return HIDDEN if "\n" not in text else "\n".join([HIDDEN] * (text.count("\n") + 1))


def redact_texts(texts: Sequence[str], redact: Callable[[str], str]) -> list[str]:
    """Return texts that follow each other, redacted together: a key may have several lines."""
    lines = redact("\n".join(texts)).split("\n")
    ends = list(accumulate(text.count("\n") + 1 for text in texts))
    return ["\n".join(lines[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def redacted_json(content: object, encode: Callable[[object], str], redact: Callable[[str], str]) -> str:
    """Return content as JSON, with what is secret hidden in its texts: JSON it stays, whatever a secret is."""
    text = encode(content)
    return text if redact(text) == text else encode(without_secrets(content, redact))


def without_secrets(content: object, redact: Callable[[str], str]) -> object:
    """Return the content of JSON with what is secret hidden in each of its texts, keys and numbers."""
    if isinstance(content, Mapping):
        return {
            redact(key) if isinstance(key, str) else key: without_secrets(item, redact) for key, item in content.items()
        }
    if isinstance(content, list | tuple):
        if all(isinstance(item, str) for item in content):
            return redact_texts(content, redact)
        return [without_secrets(item, redact) for item in content]
    if content is None or isinstance(content, bool):
        return content
    text = str(content)
    hidden = redact(text)
    return hidden if isinstance(content, str) or hidden != text else content


def _ends(value: str) -> tuple[str, ...]:
    return (value,) if len(value) <= LONGEST else (value[:KNOWN_END], value[-KNOWN_END:])


def _beginnings(forms: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern for how any of some texts begins: short enough to be compiled soon, however many they are."""
    for length in (6, 4, 3, 2):
        beginnings = {form[:length] for form in forms}
        if len(beginnings) <= 2000:
            break
    return re.compile(_any_of(sorted(beginnings))) if beginnings else None


def _any_of(texts: list[str], at: int = 0) -> str:
    """Return a pattern for any of some texts, which are told apart character by character."""
    if len(texts) <= 8:
        return "|".join(re.escape(text[at:]) for text in texts)
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(text[at : at + 1], []).append(text)
    if "" in groups:
        return ""
    if all(len(group) == 1 and len(group[0]) == at + 1 for group in groups.values()):
        return f"[{''.join(map(re.escape, groups))}]"
    return "|".join(f"{re.escape(first)}(?:{_any_of(group, at + 1)})" for first, group in groups.items())


def _forms(value: str) -> set[str]:
    """Return the value and its encodings, two deep; shell quoting one deeper (ssh, `bash -c` and `export` quote).

    Very long encodings are not encoded again.
    """
    once = _once(value)
    twice = {form for inner in once if len(inner) <= ENCODED_AGAIN for form in _once(inner)}
    thrice = {form for inner in twice if len(inner) <= ENCODED_AGAIN for form in _shell(inner)}
    return {value} | once | twice | thrice


def _once(value: str) -> set[str]:
    return {form for encode in _ENCODERS for form in encode(value)}


def _shell(value: str) -> Iterator[str]:
    yield shlex.quote(value)
    # Without the outer quotes, for a value that is quoted together with a prefix: '--api-key=it'"'"'s'.
    yield value.replace("'", "'\"'\"'")
    # bash's own `printf %q` and `set -x` escape with backslashes.
    yield re.sub(r"([^A-Za-z0-9_@%+=:,./\n-])", r"\\\1", value)


def _url(value: str) -> Iterator[str]:
    yield from (quote(value), quote(value, safe=""), quote_plus(value))
    yield from (re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), quote(value, safe="")),)


def _escaped(value: str) -> Iterator[str]:
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])


def _base64(value: str) -> Iterator[str]:
    """Yield the part of its base64 form that does not depend on the text around it, for each alignment modulo 3."""
    data = value.encode()
    for before in range(3):
        shown = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        whole = len(shown) if (before + len(data)) % 3 == 0 else len(shown) - 1
        inner = shown[(0, 2, 3)[before] : whole]
        if len(inner) >= _SHORTEST:
            yield from (inner, inner.translate(str.maketrans("+/", "-_")))


_ENCODERS: tuple[Callable[[str], Iterator[str]], ...] = (_shell, _url, _escaped, _base64)
