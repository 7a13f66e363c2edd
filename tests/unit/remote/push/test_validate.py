"""What a source sends of its tree is a tree that a copied model may be, or is refused: a sweep over all its fields."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.remote.push import validate
from flagscale_deploy.remote.push.hashes import SIZE, to_text
from flagscale_deploy.remote.push.links import leading_out
from flagscale_deploy.remote.push.tree import block_count, blocks, pieces
from flagscale_deploy.remote.push.validate import (
    MOST_BLOCKS,
    MOST_BYTES,
    MOST_ENTRIES,
    checked_digests,
    checked_tree,
    without_outside,
)
from tests.unit.remote.push.trees import JUNK, entry, hostile_trees, is_harmless, tree

EXAMPLES = 30_000 if os.environ.get("FSD_FAULTS") == "all" else 300


def test_a_tree_as_it_should_be_is_taken_as_it_is() -> None:
    assert checked_tree(tree()) == tree()
    assert (
        checked_tree({**tree(), "more": 1, "entries": [{**item, "owner": 0} for item in tree()["entries"]]}) == tree()
    )


@settings(max_examples=EXAMPLES, deadline=None)
@given(hostile_trees())
def test_whatever_a_source_sends_is_a_harmless_tree_or_refused(sent: Any) -> None:
    try:
        taken = checked_tree(sent)
    except ValueError:
        return
    seen: set[str] = set()
    directories = {""}
    assert is_harmless(taken["mode"])
    for item in taken["entries"]:
        above, _, name = item["path"].rpartition("/")
        assert above in directories
        assert name not in ("", ".", "..")
        assert "\0" not in name
        assert len(name) <= 255
        assert item["path"] not in seen
        seen.add(item["path"])
        assert is_harmless(item["mode"])
        assert 0 <= item["size"] <= MOST_BYTES
        assert item["kind"] == "file" or item["size"] == 0
        assert ("target" in item) == (item["kind"] == "link")
        if item["kind"] == "dir":
            directories.add(item["path"])
    assert sum(len(blocks(0, item["size"])) for item in taken["entries"]) <= MOST_BLOCKS
    assert without_outside(taken)["outside"] == []
    assert checked_tree(without_outside(taken))["outside"] == []


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o777, 0o666, 0o775, 0o10755, -1])
@pytest.mark.parametrize("kind", ["file", "dir", "tree"])
def test_a_mode_that_gives_others_anything_is_refused(mode: int, kind: str) -> None:
    sent = tree(mode=mode) if kind == "tree" else tree(entry("new", kind, mode=mode))
    with pytest.raises(ValueError, match="mode"):
        checked_tree(sent)


@pytest.mark.parametrize("size", [-1, 1 << 52, 1 << 63, 1 << 64, 0.5, True, "1", None])
def test_a_size_that_cannot_be_is_refused_before_anything_is_made_of_it(size: Any) -> None:
    with pytest.raises(ValueError, match="size"):
        checked_tree(tree(entry("new", "file", size=size)))


def test_many_sizes_that_could_be_are_refused_together() -> None:
    large = [entry(f"x{number:05}", "file", size=(1 << 20) * 256) for number in range(MOST_BLOCKS // 256)]
    assert checked_tree(tree(*large[:-1]))
    with pytest.raises(ValueError, match="large files"):
        checked_tree(tree(*large))
    with pytest.raises(ValueError, match="TiB"):
        checked_tree(tree(*(entry(name, "file", size=MOST_BYTES // 2) for name in ("a", "b"))))
    with pytest.raises(ValueError, match="more than 262144"):
        checked_tree({**tree(), "entries": [0] * (MOST_ENTRIES + 1)})


def test_the_largest_tree_takes_little_memory() -> None:
    """The pieces of it, that is: what a receiver makes of sizes. A part of 32 is measured."""
    import tracemalloc

    tracemalloc.start()
    try:
        pieces([256 << 20] * (MOST_BLOCKS // 256 // 32))
        assert 32 * tracemalloc.get_traced_memory()[1] < 300 << 20
    finally:
        tracemalloc.stop()


@given(st.lists(st.one_of(st.binary(max_size=70), JUNK), max_size=3), st.lists(st.integers(0, 3 << 20), max_size=3))
def test_hashes_are_as_many_as_the_blocks_or_refused(joined: list[Any], sizes: list[int]) -> None:
    right = [to_text(bytes(SIZE * block_count(size))) for size in sizes]
    assert checked_digests(right, sizes) == [bytes(SIZE * block_count(size)) for size in sizes]
    wrong = [to_text(item) if isinstance(item, bytes) else item for item in joined]
    with contextlib.suppress(ValueError):
        assert [len(digests) // SIZE for digests in checked_digests(wrong, sizes)] == [block_count(n) for n in sizes]


@pytest.mark.parametrize("texts", [None, "AAAA", [None], ["A"], ["AAAA"], ["\u2603"], [["AAAA"]], {"0": ""}])
def test_hashes_of_another_form_are_refused(texts: Any) -> None:
    with pytest.raises(ValueError):
        checked_digests(texts, [10])


LINKS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/b"]),
    st.lists(st.sampled_from(["..", ".", "a", "b", "c", "d", "e", "f", ""]), min_size=1, max_size=5).map("/".join),
    max_size=6,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(LINKS)
def test_links_are_followed_as_the_kernel_follows_them(links: dict[str, str]) -> None:
    """No link that stays inside leads anywhere else, whichever other links it goes through."""
    links = {path: target for path, target in links.items() if target}
    entries: Any = [entry("d", "dir"), entry("d/e", "dir"), entry("f", "file")]
    entries += [entry(path, "link", target=target) for path, target in links.items()]
    entries.sort(key=lambda item: item["path"])
    outside = leading_out(entries)
    with made(links) as root:
        for path in links:
            real = os.path.realpath(root / path)
            if path not in outside:
                assert os.path.commonpath([real, root]) == str(root), links


@pytest.mark.parametrize(
    ("links", "outside"),
    [
        ({"a": "f"}, []),
        ({"a": "/etc/passwd"}, ["a"]),
        ({"a": "../x"}, ["a"]),
        ({"a": "d/..", "b": "a/../x"}, ["b"]),  # `a` is the tree itself
        ({"a": "d/e", "b": "a/../../x"}, []),
        ({"a": "d/e", "b": "a/../../../x"}, ["b"]),
        ({"a": "b", "b": "c", "c": ".."}, ["a", "b", "c"]),
        ({"a": "a"}, ["a"]),
        ({"a": "b", "b": "a", "c": "f"}, ["a", "b"]),
        ({"a": "nowhere"}, []),
        ({"a": "nowhere/../x"}, ["a"]),
        ({"a": "f/../x"}, ["a"]),
        ({"d/a": "../f", "d/b": "../../x"}, ["d/b"]),
    ],
)
def test_a_link_that_leads_out_is_named(links: dict[str, str], outside: list[str]) -> None:
    entries: Any = [entry("d", "dir"), entry("d/e", "dir"), entry("f", "file")]
    entries += [entry(path, "link", target=target) for path, target in links.items()]
    assert leading_out(sorted(entries, key=lambda item: item["path"])) == outside


def test_a_chain_of_links_ends() -> None:
    """One of any length costs what its links cost, and more than 40 are not followed."""
    chain: Any = [entry(f"l{number:06}", "link", target=f"l{number + 1:06}") for number in range(50_000)]
    outside = leading_out(chain)
    assert len(outside) == 50_000 - 40
    heavy: Any = [entry(f"l{number:06}", "link", target="./" * 2000 + f"l{number + 1:06}") for number in range(400)]
    assert leading_out(heavy)


class made:
    """A directory with links of the tree above, inside another."""

    def __init__(self, links: dict[str, str]) -> None:
        self._links = links

    def __enter__(self) -> Path:
        self._outer = Path(os.path.realpath(tempfile.mkdtemp()))
        root = self._outer / "x/y/tree"
        (root / "d/e").mkdir(parents=True)
        (root / "f").touch()
        for path, target in self._links.items():
            (root / path).symlink_to(target)
        return root

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._outer)


def test_the_limits_are_those_that_are_documented() -> None:
    assert (validate.MOST_ENTRIES, validate.MOST_BYTES >> 40, validate.MOST_BLOCKS) == (262_144, 16, 1_048_576)
