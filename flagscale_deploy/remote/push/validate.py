"""Validate what other machines send of a tree, before anything is made of it: at the operator, and at each receiver.

A source may have been taken over. Whatever it sends is a tree that a copied model may be, or a ValueError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Mapping, Sequence, Set

from flagscale_deploy.remote.push.hashes import SIZE, from_text
from flagscale_deploy.remote.push.links import leading_out
from flagscale_deploy.remote.push.tree import LONGEST_PATH, PERMISSIONS, block_count, checked, from_wire, to_wire

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import PushTree, TreeEntry

MOST_ENTRIES, MOST_BYTES, MOST_BLOCKS = 1 << 18, 1 << 44, 1 << 20
"""The largest tree: 262,144 entries, 16 TiB and 1,048,576 blocks. A receiver needs some 200 MiB of memory for it."""
TIMES = range(-(1 << 63), 1 << 63)
"""Nanoseconds, as file systems store them."""


def checked_tree(tree: object) -> PushTree:
    """Return a tree with nothing but what is valid; `outside` names the links that do lead out of it.

    Raises ValueError, which names the entry and what is wrong with it.
    """
    fields = _mapping(tree)
    single, entries = fields.get("single"), fields.get("entries")
    if not isinstance(single, bool) or not isinstance(entries, list):
        raise ValueError("the tree has no entries")
    if len(entries) > MOST_ENTRIES:
        raise ValueError("the tree has %d entries, more than %d" % (len(entries), MOST_ENTRIES))
    valid = [_checked_entry(entry) for entry in entries]
    _check_together(valid, single)
    return {
        "single": single,
        "mode": _mode(fields.get("mode")),
        "entries": valid,
        "left_out": [to_wire(from_wire(path)) for path in _strings(fields.get("left_out"))],
        "outside": leading_out(valid),
    }


def checked_tree_of_operator(tree: object) -> PushTree:
    """Return a tree as `checked_tree` does, if its `outside` names each link that leads out. Raises ValueError."""
    valid = checked_tree(tree)
    unnamed = set(valid["outside"]).difference(_strings(_mapping(tree).get("outside")))
    if unnamed:
        raise ValueError("a link leads out of the tree: %s" % repr(min(unnamed))[:100])
    return valid


def without_outside(tree: PushTree) -> PushTree:
    """Return a tree without the links that lead out of it."""
    outside = set(tree["outside"])
    entries = [entry for entry in tree["entries"] if entry["path"] not in outside]
    return {**tree, "entries": entries, "left_out": [], "outside": []}


def checked_digests(texts: object, sizes: Sequence[int]) -> List[bytes]:
    """Return the hashes of the blocks of files with these sizes. Raises ValueError if there are more or fewer."""
    digests = [from_text(text) for text in _strings(texts)]
    if [len(joined) for joined in digests] != [SIZE * block_count(size) for size in sizes]:
        raise ValueError("it has hashes of other files or of other sizes")
    return digests


def checked_number(value: object, allowed: range, name: str) -> int:
    """Return a number that lies within a range. Raises ValueError for anything else."""
    if type(value) is not int or value not in allowed:
        raise ValueError("its %s is %s" % (name, repr(value)[:40]))
    return value


def _checked_entry(entry: object) -> TreeEntry:
    fields = _mapping(entry)
    path, kind, target = fields.get("path"), fields.get("kind"), fields.get("target")
    try:
        if not isinstance(path, str):
            raise ValueError("it has no path")
        checked(from_wire(path))
        if kind != "file" and kind != "dir" and kind != "link":
            raise ValueError("its kind is %s" % repr(kind)[:40])
        valid: TreeEntry = {
            "path": path,
            "kind": kind,
            "mode": _mode(fields.get("mode")),
            "size": checked_number(fields.get("size"), range(MOST_BYTES + 1 if kind == "file" else 1), "size"),
            "mtime_ns": checked_number(fields.get("mtime_ns"), TIMES, "time"),
        }
        if kind == "link":
            valid["target"] = _target(target)
    except ValueError as error:
        raise ValueError("%s: %s" % (repr(path)[:100], error)) from None
    return valid


def _mode(value: object) -> int:
    mode = checked_number(value, range(PERMISSIONS + 1), "mode")
    if mode & ~PERMISSIONS:
        raise ValueError("its mode is %o" % mode)
    return mode


def _target(value: object) -> str:
    target = from_wire(value) if isinstance(value, str) else b""
    if not target or b"\0" in target or len(target) > LONGEST_PATH:
        raise ValueError("it is a link without a valid target")
    return str(value)


def _check_together(entries: Sequence[TreeEntry], single: bool) -> None:
    """Raise ValueError unless the entries make a tree: in the order of paths, each in a directory that is listed."""
    if single and [entry["kind"] for entry in entries] != ["file"]:
        raise ValueError("a single file was announced")
    directories: Set[str] = {""}
    before = ""
    for entry in entries:
        path = entry["path"]
        if path <= before:
            raise ValueError("%s is listed twice, or not in order" % repr(path)[:100])
        if path.rpartition("/")[0] not in directories:
            raise ValueError("%s is in no directory of the tree" % repr(path)[:100])
        if entry["kind"] == "dir":
            directories.add(path)
        before = path
    sizes = [entry["size"] for entry in entries]
    if sum(sizes) > MOST_BYTES or sum(map(block_count, sizes)) > MOST_BLOCKS:
        raise ValueError("the tree has more than %d TiB, or too many large files" % (MOST_BYTES >> 40))


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError("it is no tree")
    return value


def _strings(value: object) -> List[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError("it has no list of texts")
    return value
