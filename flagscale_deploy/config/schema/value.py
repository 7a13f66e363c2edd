"""What a serve configuration is made of: the values that YAML and JSON have."""

from __future__ import annotations

from typing import TypeAlias

Value: TypeAlias = "str | int | float | bool | list[Value] | Tree | None"
Tree: TypeAlias = "dict[str, Value]"
