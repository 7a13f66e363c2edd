"""Write JSON with numbers as the user wrote them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from flagscale_deploy.config.source import WrittenFloat

_NUMBER = re.compile(r"(-?)(\d*)(\.?)(\d*)(.*)", re.DOTALL)


def json_text(value: Any) -> str:
    """Return a value as JSON on one line without blanks; `1e-5` and `0.90` stay (Python writes 1e-05, 0.9)."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json_text(str(key))}:{json_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, WrittenFloat):
        return _number(value.text)
    return json.dumps(value, ensure_ascii=False)


def _number(text: str) -> str:
    """Add the zero to YAML's `.5` and `5.` that JSON requires."""
    sign, whole, point, fraction, exponent = _NUMBER.fullmatch(text).groups()  # type: ignore[union-attr]
    return f"{sign}{whole or '0'}{point}{fraction or ('0' if point else '')}{exponent}"
