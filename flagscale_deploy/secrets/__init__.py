"""Secrets: names that mark them, a wrapper that hides its value, and a redactor for foreign text."""

from __future__ import annotations

import hmac
import re
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NoReturn

from flagscale_deploy.secrets.forms import SHORTEST, encoded, escaped, forms_of, shell_quoted
from flagscale_deploy.secrets.looks import HIDDEN, LONGEST_LOOK, LOOKS, by_look, hidden
from flagscale_deploy.text import bare

__all__ = ["HIDDEN", "LONGEST", "Redactor", "Secret", "by_look", "is_secret_name"]

_SECRET_NAME = re.compile(
    r"(?:(?:^|_)(?:KEYS?|AUTH|AUTHORIZATION|COOKIES?|PWD)|(?<!^ALLOW_)CREDENTIALS?"
    r"|(?:API_?KEY|PASSWORD|PASSPHRASE|SECRET)S?|TOKEN|PASSWD)(?:_?\d{1,3})?$"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_SECRETS = frozenset(("PWD", "OLDPWD"))
LONGEST = 16 << 10
"""Characters of a secret. The ends of a longer value are known, so that it isn't printed from its beginning."""
KNOWN_END = 1 << 10
DEEP_CHARACTERS, MOST_CHARACTERS = 2 << 20, 16 << 20
"""Up to how many characters of forms each value gets all of its forms, and up to how many those of one encoding."""
_HEAD = 32
"""Forms are looked up by so many of their first characters."""
CUT = "…"
"""What stands where a text was cut."""
_CUT = re.compile(r" ?…|\n\[flagscale-deploy: \d{1,20} bytes cut\]")


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
                if len(part) >= SHORTEST and part not in self._encoded:
                    quoted = {part, *shell_quoted(part), *escaped(part)}
                    self._add_forms(quoted if quoted_only else self._affordable(part))

    def _affordable(self, part: str) -> set[str]:
        self._encoded.add(part)
        if self._size > MOST_CHARACTERS:
            return {part}
        return forms_of(part) if self._size < DEEP_CHARACTERS else encoded(part) | {part}

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
            pieces += [text[done:start], hidden(text[start:end])]
            done = end
        text = "".join((*pieces, text[done:])) if pieces else text
        for start, end in reversed(list(self._begun(text))):
            text = text[:start] + hidden(text[start:end]) + text[end:]
        return by_look(text)

    def _begun(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where a value only begins, because the text was cut behind that: a mark stands there."""
        ends = [match.start() for match in _CUT.finditer(text)] if CUT in text or " bytes cut]" in text else []
        at = 0
        while ends and self._pattern and (match := self._pattern.search(text, at)):
            at = match.start()
            if (number := bisect_left(ends, at)) == len(ends):
                return
            if self._begins(text[at : ends[number]]):
                yield at, ends[number]
                at = ends[number]
            at += 1

    def _begins(self, shown: str) -> bool:
        if len(shown) < SHORTEST or len(shown) > self._longest:
            return False
        if len(shown) < _HEAD:
            return any(head.startswith(shown) for head in tuple(self._forms))
        return any(form.startswith(shown) for form in tuple(self._forms.get(shown[:_HEAD], ())))

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
        return max(LONGEST_LOOK, self._longest)

    def cut(self, text: str, at: int) -> int:
        """Return the last position up to `at` that is not within a secret."""
        before = max(0, at - self.longest)
        looks = ((match.span() for match in pattern.finditer(text, before)) for _, pattern in LOOKS)
        for spans in (self._spans(text, before), *looks):
            for start, end in spans:
                if start >= at:
                    break
                at = start if end > at else at
        return at


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
