"""What the leader and the members of a group do, by their reports and a clock that tests turn."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from flagscale_deploy.remote.deployment.restart_permits import Files
from flagscale_deploy.remote.messages.group import MemberState, Report, Wish
from flagscale_deploy.remote.peers import PeerServer, connect_peer
from flagscale_deploy.remote.supervisor import leader as leader_module
from flagscale_deploy.remote.supervisor.channel import LONGEST, Channel, ForgedMessageError
from flagscale_deploy.remote.supervisor.follower import _WISH, Follower
from flagscale_deploy.remote.supervisor.group import LONGEST_REASON, MOST_GENERATIONS, Group, checked, token_of
from flagscale_deploy.remote.supervisor.leader import _REPORT, Leader

HOSTS = ("gpu01", "gpu02", "gpu03")
LOST = 60.0
GROUP = b"the token of this group"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    permits = Files(tmp_path, "r1", "serve.sh")
    permits.permit()
    return permits


@pytest.fixture
def leader(clock: Clock, files: Files) -> Leader:
    return Leader(HOSTS, files, LOST, clock=clock)


def report(
    leader: Leader, member: int, state: MemberState = "running", generation: int = 1, why: str = "", spare: bool = False
) -> Wish:
    return leader.answer(member, Report(generation=generation, state=state, why=why, spare=spare))


def both(leader: Leader, state: MemberState, generation: int) -> list[Wish]:
    return [report(leader, rank, state, generation) for rank in (1, 2)]


def test_a_group_of_one_waits_for_nobody() -> None:
    group = Group()
    group.note_end("was ended by SIGKILL")
    assert (group.problem(), group.missing(), group.over, group.leads, group.several) == ("", "", "", True, False)


def test_a_member_that_ends_is_a_problem_once_the_group_was_ready(clock: Clock, tmp_path: Path) -> None:
    files = Files(tmp_path, "r1", "serve.sh")
    leader = Leader(HOSTS, files, LOST, clock=clock)
    assert not report(leader, 1, "ended", why="was ended by SIGKILL")["permitted"]
    assert leader.problem() == ""
    files.permit()
    assert leader.problem() == "rank 1 on gpu02 was ended by SIGKILL"


def test_the_next_start_waits_until_nothing_of_the_last_one_is_left(leader: Leader) -> None:
    both(leader, "running", 1)
    leader.note_end("rank 1 on gpu02 ended with exit status 0")
    wish = report(leader, 1, "ended")
    assert (wish["generation"], wish["run"], wish["why"]) == (2, False, "rank 1 on gpu02 ended with exit status 0")
    assert not wish["hung"]
    assert leader.missing() == "waiting for gpu02 to end its rank, gpu03 to end its rank"
    report(leader, 1, "down")
    assert leader.missing() == "waiting for gpu03 to end its rank"
    report(leader, 2, "down")
    assert leader.missing() == ""
    leader.begin()
    assert [wish["run"] for wish in both(leader, "down", 1)] == [True, True]
    assert leader.problem() == "", "they start within a second"
    both(leader, "running", 2)
    assert leader.problem() == ""


def test_a_member_is_lost_after_its_time_and_not_before(leader: Leader, clock: Clock) -> None:
    both(leader, "running", 1)
    clock.now += LOST - 1
    report(leader, 2)
    assert leader.problem() == ""
    clock.now += 2
    assert leader.problem() == "rank 1 on gpu02 is lost: silent for 61 s"
    leader.note_end(leader.problem())
    report(leader, 2, "down")
    assert leader.missing() == "waiting for gpu02 (silent 60 s)"
    clock.now += 7
    report(leader, 2, "down")
    assert leader.missing() == "waiting for gpu02 (silent 65 s)"
    report(leader, 1, "down")
    assert leader.missing() == ""


def test_what_was_down_long_ago_may_be_anything_by_now(leader: Leader, clock: Clock) -> None:
    leader.note_end("hung 10 min")
    both(leader, "down", 1)
    clock.now += 6
    assert leader.missing() == "waiting for gpu02 (silent 5 s), gpu03 (silent 5 s)"


def test_a_member_of_a_later_start_is_told_a_yet_later_one(leader: Leader) -> None:
    """The leader's own state may be lost: its disk was full when it was rebooted."""
    report(leader, 1, generation=7)
    assert leader.problem() == "rank 1 on gpu02 belongs to a later start"
    leader.note_end(leader.problem())
    assert report(leader, 1, "running", 7)["generation"] == 8
    assert report(leader, 2, "running", 1)["generation"] == 8


def test_one_that_can_not_be_started_ends_it_for_all(leader: Leader) -> None:
    leader.note_end("hung 10 min")
    report(leader, 1, "gave up", why="its process 7 (VLLM::Worker) cannot be ended")
    assert leader.over == "rank 1 on gpu02 gave up: its process 7 (VLLM::Worker) cannot be ended"
    wish = report(leader, 2, "down")
    assert (wish["over"], wish["run"]) == (leader.over, False)


@pytest.fixture
def port(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Let the leader listen for its group on loopback; return its port."""
    servers: SimpleQueue[PeerServer] = SimpleQueue()

    def listen(*args: Any, **settings: Any) -> None:
        servers.put(PeerServer(*args, **settings))

    monkeypatch.setattr(leader_module, "PeerServer", listen)
    leader.listen(("127.0.0.1", 0), GROUP, ["127.0.0.1"], print)
    server = servers.get(timeout=60)
    yield server.port
    server.close()


@contextlib.contextmanager
def connected(port: int, rank: int, group: bytes = GROUP) -> Iterator[Channel]:
    """Connect as the supervisor of a rank does; the leader has heard of it."""
    connection, key = connect_peer(("127.0.0.1", port), token_of(group, rank))
    with connection:
        channel = Channel(connection, key, is_client=True)
        tell(channel, "running")
        yield channel


def tell(channel: Channel, state: str, **more: object) -> None:
    channel.send({"generation": 1, "state": state, "why": "of its own", "spare": False, **more}, 5)
    channel.receive(30)


def test_a_host_speaks_for_its_own_rank_whatever_it_says(leader: Leader, port: int) -> None:
    with connected(port, 1) as first, connected(port, 2):
        tell(first, "down", rank=2)
        assert [member.report and member.report["state"] for member in leader._members.values()] == ["down", "running"]
        assert leader.missing() == "waiting for gpu03 to end its rank"
        tell(first, "gave up", rank=2)
        assert leader.over == "rank 1 on gpu02 gave up: of its own"


def test_nothing_that_a_host_sends_is_written_to_the_leaders_log(
    leader: Leader, port: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that sends nonsense a thousand times a second would fill the disk of its leader with errors."""
    messages: list[Any] = [{"generation": 1, "state": "down", "more": 1}, {}, [], [[[1]]], "x", None]
    for message in messages:
        connection, key = connect_peer(("127.0.0.1", port), token_of(GROUP, 1))
        with connection:
            channel = Channel(connection, key, is_client=True)
            channel.send(message, 5)
            with pytest.raises(OSError, match=r".+"):
                channel.receive(30)
    monkeypatch.setattr(leader, "answer", None)  # an error of ours
    with pytest.raises(OSError, match=r".+"), connected(port, 1):
        pass
    for thread in [thread for thread in threading.enumerate() if "_shake_hands" in thread.name]:
        thread.join(30)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("token", [token_of(b"of another group", 1), token_of(GROUP, 3), GROUP, b""])
def test_a_host_without_a_rank_in_the_group_is_turned_away(port: int, token: bytes) -> None:
    """A host has no token but that of its rank; GROUP itself is the leader's own."""
    with pytest.raises(ConnectionError):
        connect_peer(("127.0.0.1", port), token)


def test_no_token_tells_another(leader: Leader) -> None:
    tokens = [token_of(group, rank) for group in (GROUP, b"of another group") for rank in range(len(HOSTS))]
    assert len({*tokens}) == len(tokens)


def test_a_rank_has_one_connection(leader: Leader, port: int) -> None:
    """However many one opens: each would cost the leader a thread."""
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(connected(port, 1)) for _ in range(20)]
        other = stack.enter_context(connected(port, 2))
        for channel in channels[:-1]:
            with pytest.raises(OSError, match=r".+"):
                tell(channel, "running")
        tell(channels[-1], "running")
        tell(other, "running")


SHAPES = {"report": _REPORT, "wish": _WISH}
SOUND = {int: 1, str: "x", bool: True}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_message_of_another_host_holds_nothing_that_its_reader_hands_on_to_the_operator(shape: Any) -> None:
    sound = {name: SOUND[kind] for name, kind in shape.items()}
    assert checked({**sound, "more": "x"}, shape) == sound
    for name, kind in shape.items():
        others: list[object] = [None, [], {}, 1.5, *([] if kind is str else ["x"]), *([] if kind is int else [7])]
        for wrong in others:
            with pytest.raises(OSError, match="another form"):
                checked({**sound, name: wrong}, shape)
        rest = {other: value for other, value in sound.items() if other != name}
        for more in ({}, {"more": 1}, dict.fromkeys("abcdefgh", 1)):
            with pytest.raises(OSError, match="another form"):
                checked({**rest, **more}, shape)
        if kind is str:
            text = checked({**sound, name: "a\x1b[2Jb\nc\u2028d\x9be" + "f" * 5000}, shape)[name]
            assert isinstance(text, str)
            assert text.isprintable()
            assert len(text) == LONGEST_REASON
    for generation in (-1, MOST_GENERATIONS + 1, 10**30, 10**4000):
        with pytest.raises(OSError, match="no group was started so often"):
            checked({**sound, "generation": generation}, shape)


def wish(**changes: Any) -> Wish:
    whole: Wish = {"generation": 1, "rank": 1, "run": True, "permitted": True, "why": "", "hung": False, "over": ""}
    return {**whole, **changes}  # type: ignore[typeddict-item]


def test_a_follower_ends_and_starts_as_its_leader_wishes(clock: Clock, tmp_path: Path) -> None:
    files = Files(tmp_path, "r1", "serve_rank1.sh")
    follower = Follower("gpu01", files, LOST, clock=clock)
    follower.hear(wish(permitted=False))
    assert not files.permitted
    follower.hear(wish())
    assert files.permitted
    assert follower.problem() == ""
    follower.hear(wish(generation=2, run=False, why="rank 2 on gpu03 ended with exit status 0"))
    assert follower.problem() == "ends with its group: rank 2 on gpu03 ended with exit status 0"
    follower.note_end(follower.problem())
    assert follower.report["state"] == "ended"
    follower.note_down()
    assert follower.report["state"] == "down"
    assert follower.missing() == "waiting for its group's leader on gpu01 to start it"
    follower.hear(wish(generation=2))
    assert follower.missing() == ""
    follower.begin()
    assert (follower.report["state"], follower.report["generation"], follower.problem()) == ("running", 2, "")


def test_a_follower_keeps_evidence_of_a_start_that_hangs_and_of_no_later_one(leader: Leader, files: Files) -> None:
    follower = Follower("gpu01", files, LOST)
    follower.hear(report(leader, 1))
    assert not follower.hung
    leader.note_end("hung 10 min: 1 request running and no token since 14:02:11", hung=True)
    follower.hear(report(leader, 1))
    assert follower.hung
    follower.note_end(follower.problem())
    follower.note_down()
    leader.begin()
    follower.hear(report(leader, 1, "down"))
    follower.begin()
    assert not follower.hung
    leader.note_end("was ended by SIGKILL")
    follower.hear(report(leader, 1, generation=2))
    assert not follower.hung


def test_a_follower_without_a_leader_ends_its_own(clock: Clock, files: Files) -> None:
    follower = Follower("gpu01", files, LOST, clock=clock)
    clock.now += LOST + 5
    assert follower.problem() == "", "it was never in touch: it may have been started long before the driver"
    follower.hear(wish())
    clock.now += LOST + 1
    assert follower.problem() == "its group's leader on gpu01 is lost: silent for 61 s"
    follower.note_end(follower.problem())
    follower.note_down()
    waiting = "waiting for its group's leader on gpu01 (silent 60 s)"
    assert follower.missing() == waiting + "; power gpu01 on, or stop and run without it"
    assert follower.remedy
    follower.hear(wish(generation=2, run=False))
    assert not follower.remedy


def test_stop_is_not_undone_by_a_permit_of_the_leader(clock: Clock, tmp_path: Path) -> None:
    files = Files(tmp_path, "r1", "serve_rank1.sh")
    (tmp_path / "restart/r1").mkdir(parents=True)
    (tmp_path / "restart/r1/stop").touch()
    Follower("gpu01", files, LOST, clock=clock).hear(wish())
    assert not files.permitted


def channels() -> tuple[Channel, Channel, socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    key = os.urandom(32)
    return Channel(ours, key, is_client=True), Channel(theirs, key, is_client=False), ours, theirs


def test_messages_arrive_in_both_directions() -> None:
    client, server, *sockets = channels()
    for number in range(3):
        client.send({"number": number}, 1)
        assert server.receive(1) == {"number": number}
        server.send({"heard": number}, 1)
        assert client.receive(1) == {"heard": number}
    for one in sockets:
        one.close()


def receive_all(channel: Channel) -> None:
    while True:
        channel.receive(1)


@pytest.mark.parametrize(
    "forge",
    [
        lambda line: line.replace(b"1", b"2"),
        lambda line: b"0" * 64 + line[64:],
        lambda line: line[65:],
        lambda _: b"\xff" * 80 + b"\n",
        lambda line: line + line,
        lambda _: b"x" * (LONGEST + 1),
    ],
    ids=["changed", "another signature", "no signature", "no text", "repeated", "too long"],
)
def test_what_is_forged_is_refused(forge: Any) -> None:
    key = os.urandom(32)
    first, last = socket.socketpair()
    between, theirs = socket.socketpair()
    Channel(first, key, is_client=True).send({"number": 1}, 1)
    between.sendall(forge(last.recv(65536)))
    server = Channel(theirs, key, is_client=False)
    with pytest.raises(ForgedMessageError):
        receive_all(server)
    for one in (first, last, between, theirs):
        one.close()


def test_what_was_sent_is_not_taken_when_it_is_sent_back() -> None:
    client, server, ours, theirs = channels()
    client.send({"number": 1}, 1)
    theirs.sendall(theirs.recv(65536))
    with pytest.raises(ForgedMessageError):
        client.receive(1)
    assert server is not None
    ours.close()
    theirs.close()
