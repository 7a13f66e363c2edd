"""The values that YAML and JSON have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Value: TypeAlias = "str | int | float | bool | Sequence[Value] | Mapping[str, Value] | None"
Tree: TypeAlias = "dict[str, Value]"
"""A mapping by names: a configuration, a part of it, a JSON document."""
