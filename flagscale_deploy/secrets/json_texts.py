"""Hide secrets in the texts of JSON, which stays JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate


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
