"""Read JSON that somebody else may have written: whatever is wrong with it is a ValueError that says so."""

from __future__ import annotations

import json
import math
from typing import Any, Dict, Optional, Union

from flagscale_deploy.remote.system import files

LARGEST = 4 << 20
"""Bytes of a file of our own: a record of 1,000 servers has a tenth of that."""
DIGITS = 40
"""The most digits of a whole number. Python before 3.11 takes a minute over 100,000 of them."""

Shape = Any
"""What a value has to be: a type, one of several shapes in a tuple, `[shape]` for a list, `{"key": shape}` where a
missing key is no fault, `{"": shape}` for a mapping with any keys."""


def read_object(
    path: str, limit: int = LARGEST, *, follow: bool = False, dir_fd: Optional[int] = None
) -> Dict[str, Any]:
    """Return the object in a JSON file. Raises OSError, and ValueError where it is anything else."""
    return parse_object(files.read_whole(path, limit, follow=follow, dir_fd=dir_fd))


def parse_object(content: Union[bytes, str]) -> Dict[str, Any]:
    """Return the object that this is in JSON. Raises ValueError as `parse` does, and where it is no object."""
    parsed = parse(content)
    if not isinstance(parsed, dict):
        raise ValueError("expected an object, found %s" % type(parsed).__name__)
    return parsed


def parse(content: Union[bytes, str]) -> object:
    """Return what this is in JSON; numbers that are not finite become None. Raises ValueError."""
    try:
        return json.loads(content, parse_int=_integer, parse_float=_finite, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def mismatch(value: object, shape: Shape, place: str = "") -> str:
    """Return where a value is not of a shape, as `processes.0.pid: expected int, found str`; "" where it is."""
    if isinstance(shape, tuple):
        problems = [mismatch(value, one, place) for one in shape]
        return problems[0] if all(problems) else ""
    if isinstance(shape, type):
        wrong = not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool)
        return "%s: expected %s, found %s" % (place, shape.__name__, type(value).__name__) if wrong else ""
    kind = list if isinstance(shape, list) else dict
    if not isinstance(value, kind):
        return "%s: expected %s, found %s" % (place, kind.__name__, type(value).__name__)
    below = enumerate(value) if isinstance(value, list) else value.items()
    for key, inner in below:
        wanted = shape[0] if isinstance(shape, list) else shape.get("", shape.get(key))
        problem = mismatch(inner, wanted, ("%s.%s" % (place, key)).lstrip(".")[:100]) if wanted is not None else ""
        if problem:
            return problem
    return ""


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError("a number of %d digits" % len(text))
    return int(text)


def _finite(text: str) -> Optional[float]:
    number = float(text)
    return number if math.isfinite(number) else None
