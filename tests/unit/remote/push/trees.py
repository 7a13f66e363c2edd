"""Trees as a hostile source may send them: a valid one with one or two of its fields changed, or none at all."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from flagscale_deploy.remote.push.tree import PERMISSIONS

CONTENT = {"model.bin": b"weights" * 3000, "sub/run.sh": b"#!/bin/sh\n", "sub/deep/none": b""}


def entry(path: str, kind: str, **fields: Any) -> dict[str, Any]:
    mode, size = (0o755 if kind == "dir" else 0o644), len(CONTENT.get(path, b"")) if kind == "file" else 0
    return {"path": path, "kind": kind, "mode": mode, "size": size, "mtime_ns": 1_700_000_000 * 10**9, **fields}


def tree(*more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a valid tree with the files of CONTENT, and more entries."""
    entries = [
        entry("model.bin", "file"),
        entry("sub", "dir"),
        entry("sub/deep", "dir"),
        entry("sub/deep/none", "file"),
        entry("sub/link", "link", target="../model.bin"),
        entry("sub/run.sh", "file", mode=0o755),
        *more,
    ]
    entries.sort(key=lambda item: str(item["path"]))
    return {"single": False, "mode": 0o755, "entries": entries, "left_out": [], "outside": [], **fields}


PATHS = st.one_of(
    st.sampled_from(
        ["", ".", "..", "/", "../up", "/etc/x", "a/../../up", "sub/../../up", "a//b", "a/", "sub", "sub/run.sh",
         "model.bin/x", "sub/link/x", "sub/deep", "nowhere/x", ".flagscale-push", ".flagscale-push/x", "a\0b",
         "x" * 256, "y/" * 2048, "\u2603", "\ud800", "a\x1b[2Jb", "a\nb", "~", "-rf"]
    ),
    st.text("ab./\0\xff", max_size=8),
)  # fmt: skip
TARGETS = st.one_of(
    st.sampled_from(
        ["", ".", "..", "/etc/passwd", "../..", "../../etc", "sub/../..", "link", "sub/link", "run.sh/../../..", "b\0",
         "z" * 5000, "nowhere/../../x", "\u2603", "deep/../../../x"]
    ),
    st.text("ab./", max_size=12),
)  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from(
        [-1, 0, 1, 0o777, 0o1777, 0o4755, 0o2755, 0o7777, 0o666, 1 << 31, 1 << 44, (1 << 44) + 1, 1 << 52,
         1 << 63, 1 << 64, 10**400]
    ),
    st.integers(),
)  # fmt: skip
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.just([]),
    st.just({}),
    st.just([[]]),
    st.just("x"),
    st.text(max_size=4),
    NUMBERS,
)
FIELDS: dict[str, Any] = {
    "path": PATHS,
    "kind": st.sampled_from(["file", "dir", "link", "fifo", ""]),
    "mode": NUMBERS,
    "size": NUMBERS,
    "mtime_ns": NUMBERS,
    "target": TARGETS,
}
TOP: dict[str, Any] = {
    "single": st.booleans(),
    "mode": NUMBERS,
    "left_out": st.lists(PATHS, max_size=3),
    "outside": st.lists(PATHS, max_size=3),
}


@st.composite
def hostile_trees(draw: st.DrawFn) -> Any:
    """Draw a tree with up to three changes."""
    changed = copy.deepcopy(tree())
    for _ in range(draw(st.integers(1, 3))):
        entries = changed.get("entries")
        what = draw(st.sampled_from(["field", "field", "field", "link", "add", "junk", "drop", "top"]))
        if what == "top":
            name = draw(st.sampled_from(sorted(TOP)))
            changed[name] = draw(st.one_of(TOP[name], JUNK))
        elif what == "junk":
            changed[draw(st.sampled_from(sorted(changed)))] = draw(JUNK)
        if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries) or not entries:
            continue
        chosen = draw(st.sampled_from(entries))
        if what == "field":
            name = draw(st.sampled_from(sorted(FIELDS)))
            chosen[name] = draw(st.one_of(FIELDS[name], FIELDS[name], JUNK))
        elif what == "link":
            chosen.update(kind="link", size=0, target=draw(TARGETS))
        elif what == "drop":
            chosen.pop(draw(st.sampled_from(sorted(chosen))) if chosen else "", None)
        elif what == "add":
            kind = draw(st.sampled_from(["file", "dir", "link"]))
            entries.append(entry(draw(PATHS), kind, **({"target": draw(TARGETS)} if kind == "link" else {})))
            entries.sort(key=lambda item: str(item.get("path")))
    return changed


def is_harmless(mode: int) -> bool:
    """Return whether permission bits give nobody else anything to write or to become."""
    return mode & ~PERMISSIONS == 0
