"""What hosts reply: whatever it is, it can be used afterwards, or its host has failed."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.errors import RemoteError
from flagscale_deploy.push.replies import MALFORMED, ReplyValidator, facts_of, peers_of
from flagscale_deploy.push.report import Differences, faults_of_paths, faults_of_space
from flagscale_deploy.remote.messages.push import PUSH_SOURCE, PushReply
from flagscale_deploy.remote.wire import PREFIX
from flagscale_deploy.transport.replies import Replies
from tests.unit.remote.push.trees import JUNK, PATHS, tree

EXAMPLES = 30_000 if os.environ.get("FSD_FAULTS") == "all" else 500
INTERFACE = {"name": "eth0", "addresses": ["10.0.0.1", "fe80::1"], "mtu": 1500, "up": True, "speed": None}
NETWORK = {"interfaces": [INTERFACE], "default_address": "10.0.0.1"}
REPLIES: list[dict[str, Any]] = [
    {"network": NETWORK},
    {"network": NETWORK, "tree": tree()},
    {"hashed": 10},
    {"digests": ["A" * 43 + "=", "", "A" * 43 + "="]},
    {"missing": ["sub"], "different": [], "modes": ["model.bin"], "blocked": []},
    {"have": [0], "needed": 1, "free": 2},
    {"port": 4000},
    {"got": 0, "seconds": 0.5},
    {"failed": 0, "kind": "corrupt", "why": "a block has the wrong hash"},
    {"received": 100},
    {"finished": {"missing": ["model.bin"]}},
    {"refused": "no"},
]


def validator() -> ReplyValidator:
    validator = ReplyValidator()
    validator.set_tree(tree())  # type: ignore[arg-type]
    return validator


@pytest.mark.parametrize("reply", REPLIES, ids=str)
def test_what_programs_reply_is_valid(reply: dict[str, Any]) -> None:
    use(parse(reply))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(REPLIES), st.data())
def test_whatever_a_host_replies_can_be_used_or_its_host_has_failed(reply: dict[str, Any], data: st.DataObject) -> None:
    changed = json.loads(json.dumps(reply))
    place = data.draw(st.sampled_from(list(places(changed))))
    *way, last = place
    inner = changed
    for step in way:
        inner = inner[step]
    if data.draw(st.booleans()) and isinstance(inner, dict):
        del inner[last]
    else:
        inner[last] = data.draw(
            st.one_of(JUNK, PATHS, st.lists(PATHS, max_size=2), st.lists(st.integers(), max_size=2))
        )
    try:
        message = parse(changed)
    except RemoteError:
        return
    use(message)


def places(value: Any, *way: Any) -> Any:
    """Yield the way to every field, however deep."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, content in list(inner):
        yield (*way, key)
        yield from places(content, *way, key)


def parse(reply: dict[str, Any]) -> PushReply:
    """Return a reply as it arrives over the wire. Raises RemoteError."""
    message = Replies("gpu01", PUSH_SOURCE).read((PREFIX + json.dumps(reply)).encode())
    if message is None:
        raise RemoteError("gpu01", "no JSON, as a login may print it")
    try:
        validator().validate(message)
    except MALFORMED as error:
        raise RemoteError("gpu01", str(error)) from error
    return message


def use(reply: PushReply) -> None:
    """Use a reply as the push does: nothing is raised."""
    if "network" in reply:
        peers_of(facts_of(reply["network"]))
    if "missing" in reply:
        Differences.parse(reply)
        faults_of_paths({"gpu01": reply})
    if "have" in reply:
        faults_of_space("/models", {"gpu01": reply})
        assert set(reply["have"]) <= {0}
    if "port" in reply:
        assert 0 < reply["port"] < 1 << 16
    if "got" in reply:
        assert reply["got"] == 0
    if "failed" in reply:
        assert (reply["failed"], reply["kind"] + reply["why"]) != (0, "")


def test_peers_are_the_addresses_that_others_may_come_from() -> None:
    interface: dict[str, Any] = {**INTERFACE, "addresses": ["127.0.0.1", "fe80::1", "10.0.0.1"]}
    network: Any = {**NETWORK, "interfaces": [interface]}
    assert peers_of(facts_of(network)) == ["10.0.0.1"]
    interface["addresses"] = [f"10.0.{number}.1" for number in range(200)]
    assert len(peers_of(facts_of(network))) == 32
