"""Look at the files of a model's weights: which there have to be, how large they are, which are not whole."""

from __future__ import annotations

import os
import re
from typing import Dict, Iterable, List, Mapping, Optional

from flagscale_deploy.remote.system import files

LEFT_BY_TRAINING = frozenset(("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"))
"""vLLM loads none of these (`filter_files_not_needed_for_inference`)."""
PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.(safetensors|bin|gguf)")

POINTER, POINTER_BYTES = b"version https://git-lfs.github.com/spec/v1", 1024
"""How a file of Git LFS begins that was not fetched, and more than such a file has (its specification)."""
LENGTH_BYTES, LONGEST_HEADER = 8, 100_000_000
"""A safetensors file begins with the length of its header, 100 MB at most (safetensors' `MAX_HEADER_SIZE`)."""
OFFSETS = re.compile(rb'"data_offsets"\s*:\s*\[\s*\d{1,18}\s*,\s*(\d{1,18})\s*\]')


def sizes(place: str, names: Iterable[str]) -> Dict[str, int]:
    """Return the sizes of weight files by name; a link that leads nowhere is not there. Raises PermissionError."""
    by_name = {}
    for name in names:
        path = os.path.join(place, name)
        if name not in LEFT_BY_TRAINING and os.path.isfile(path):
            if not os.access(path, os.R_OK):
                raise PermissionError(13, "permission denied", path)
            by_name[name] = os.stat(path).st_size
    return by_name


def wanted(index: Mapping[str, object], names: Iterable[str]) -> List[str]:
    """Return the files of an index, or where there is none those that the parts' names imply, safetensors first.

    `model-00002-of-00004.safetensors` implies four.
    """
    listed = index.get("weight_map")
    if isinstance(listed, dict):
        return sorted({name for name in listed.values() if isinstance(name, str)})
    parts = [part for part in map(PART.fullmatch, names) if part and not part[1].startswith("consolidated")]
    kinds = [part for part in parts if part[4] == "safetensors"] or [part for part in parts if part[4] == "bin"]
    return sorted({name for part in kinds for name in siblings(part)})


def siblings(part: "re.Match[str]") -> List[str]:
    """Return the names of all parts of a file that was split."""
    return ["%s-%05d-of-%s.%s" % (part[1], number + 1, part[3], part[4]) for number in range(int(part[3]))]


def total(index: Mapping[str, object]) -> Optional[int]:
    """Return the size of the tensors by an index, in bytes."""
    metadata = index.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(size, float) and size == int(size):  # some were written so
        size = int(size)
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None


def torn(place: str, weights: Mapping[str, int]) -> Dict[str, str]:
    """Return files that are not whole by their own beginning, with what is wrong.

    These are pointers of Git LFS, and safetensors of another length than their header says. Empty ones are left out.
    """
    problems = {}
    for name, size in weights.items():
        small = 0 < size <= POINTER_BYTES
        if small or (name.endswith(".safetensors") and size > 0):
            problem = _problem(os.path.join(place, name), size)
            if problem:
                problems[name] = problem
    return problems


def pointers(place: str, weights: Mapping[str, int]) -> List[str]:
    """Return the names of the files that are pointers of Git LFS: their content was not fetched."""
    return [name for name, size in weights.items() if size <= POINTER_BYTES and _is_pointer(os.path.join(place, name))]


def _is_pointer(path: str) -> bool:
    return files.read_start(path, len(POINTER), follow=True) == POINTER


def _problem(path: str, size: int) -> str:
    with files.open_regular(path, follow=True) as file:
        beginning = file.read(len(POINTER))
        if beginning == POINTER:
            return f"is a Git LFS pointer of {size} bytes"
        if not path.endswith(".safetensors"):
            return ""
        length = int.from_bytes(beginning[:LENGTH_BYTES], "little")
        if len(beginning) < LENGTH_BYTES or length > LONGEST_HEADER:
            return "is not a safetensors file"
        if LENGTH_BYTES + length > size:
            return f"is cut off after {size} bytes, in its header"
        rest = file.read(max(0, LENGTH_BYTES + length - len(beginning)))
    header = (beginning[LENGTH_BYTES:] + rest)[:length]
    if header[:1] != b"{":
        return "is not a safetensors file"
    announced = LENGTH_BYTES + length + max(map(int, OFFSETS.findall(header)), default=0)
    if size == announced:
        return ""
    return (
        f"is cut off: {size} of {announced} bytes"
        if size < announced
        else f"has {size} bytes, {announced} by its header"
    )
