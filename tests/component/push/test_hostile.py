"""Hosts of a push that were taken over: what they send harms neither the operator nor the other hosts, and is named."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.api import push
from flagscale_deploy.errors import CheckError, DeployError, RemoteError
from flagscale_deploy.events import Event
from flagscale_deploy.push import session, transfer
from flagscale_deploy.push.report import PushReport
from tests.component.push.homes import Homes

SIZE = 5 * (1 << 20) + 7
DEST = "models/m"
ALL = os.environ.get("FSD_FAULTS") == "all"
MIB = 1 << 20


@pytest.fixture
def model(homes: Homes) -> Path:
    """Provide a model on the first host, and here."""
    return write_model(homes / "gpu01" / DEST)


def write_model(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "model.bin").write_bytes(os.urandom(SIZE))
    (root / "sub/run.sh").write_text("#!/bin/sh\n")
    (root / "link").symlink_to("sub")
    return root


def changing_the_tree(change: str) -> str:
    """Return the trick of a source that changes its tree: Python with `tree`, and `entries` by their paths."""
    return f"""
if name == "push_source":
    from flagscale_deploy.remote.push import hashes, source, tree as trees
    real = source.scan
    def scan(*words):
        tree = real(*words)
        entries = {{entry["path"]: entry for entry in tree["entries"]}}
        {change}
        return tree
    source.scan = scan
    source.Source.digests = lambda self, *_: [b"?" * 32 * min(9, abs(len(self.pieces))) for _ in self.files]
    source.pieces = lambda sizes: []
"""


PLANTED = [
    'entries["sub/run.sh"]["mode"] = 0o4755',
    'entries["sub/run.sh"]["mode"] = 0o777',
    'entries["sub"]["mode"] = 0o1777',
    'tree["mode"] = 0o2777',
    'entries["sub/run.sh"]["path"] = "../../.ssh/authorized_keys"',
    'entries["sub/run.sh"]["path"] = "/etc/cron.d/x"',
    'entries["sub/run.sh"]["path"] = "link/run.sh"',
    'entries["model.bin"]["size"] = 1 << 52',
    'entries["model.bin"]["size"] = -1',
    'entries["model.bin"]["size"] = float("nan")',
    'entries["model.bin"]["mtime_ns"] = 1 << 90',
    'tree["single"] = True',
    'tree["entries"].append(dict(entries["model.bin"]))',
    'tree["entries"] = [dict(entries["model.bin"], path="m%07d" % number, size=1 << 40) for number in range(20)]',
    'entries["link"]["target"] = None',
    'entries["sub"]["kind"] = "fifo"',
    'tree.clear()',
    'tree["entries"] = None',
    'tree["left_out"] = [3]',
]  # fmt: skip


@pytest.mark.parametrize("change", PLANTED)
def test_a_tree_that_no_model_has_is_refused_at_the_operator_and_its_host_named(
    homes: Homes, model: Path, change: str
) -> None:
    homes.tricks["gpu01"] = changing_the_tree(change)
    with pytest.raises(RemoteError, match=r"^gpu01: ") as error:
        homes.push(f"gpu01:~/{DEST}")
    assert len(str(error.value)) < 600
    for name in ("gpu02", "gpu03"):
        assert list((homes / name).rglob("*")) == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../../..", "sub/../../x"])
def test_a_link_that_leads_out_is_left_out_and_named_also_if_the_source_hides_it(
    homes: Homes, model: Path, target: str
) -> None:
    (model / "out").symlink_to(target)
    (model / "through").symlink_to("out/x")
    homes.tricks["gpu01"] = (
        changing_the_tree('tree["outside"] = []')
        .replace("source.Source.digests =", "_ =")
        .replace("source.pieces =", "_ =")
    )
    report = homes.push(f"gpu01:~/{DEST}")
    assert report.exit_code == 0
    assert any("out, through; --copy-links" in note for note in report.notes)
    for name in ("gpu02", "gpu03"):
        assert {path.name for path in (homes / name / DEST).iterdir()} == {"model.bin", "sub", "link"}


TYPES = ("= -1", "fifo", "nan", "None", "90")
"""What is refused by the types of replies already, which the operator validates first."""
AT_RECEIVERS = [
    change
    for change in PLANTED
    if change.startswith(("entries", 'tree["mode"]')) and not any(word in change for word in TYPES)
] + ['entries["link"]["target"] = "../.."']


@pytest.mark.parametrize("change", AT_RECEIVERS)
def test_a_receiver_refuses_it_as_well_and_takes_little_memory(
    homes: Homes, model: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the operator lets everything through. Receivers may have 1.5 GiB of address space, threads included."""
    monkeypatch.setattr("flagscale_deploy.push.replies.checked_tree", lambda tree: tree)
    monkeypatch.setattr("flagscale_deploy.push.push.without_outside", lambda tree: tree)
    monkeypatch.setattr("flagscale_deploy.push.push.notes_of", lambda *_, **__: ())
    monkeypatch.setattr("flagscale_deploy.push.replies.ReplyValidator.set_tree", lambda *_: None)
    monkeypatch.setattr("flagscale_deploy.push.replies.checked_digests", lambda *_: None)
    homes.before = f"ulimit -v {1536 << 10};"
    homes.tricks["gpu01"] = changing_the_tree(change)
    with pytest.raises(CheckError) as error:
        homes.push(f"gpu01:~/{DEST}")
    assert {fault.where for fault in error.value.faults} == {"gpu02", "gpu03"}
    assert "Error" not in str(error.value)
    for name in ("gpu02", "gpu03"):
        for path in (homes / name).rglob("*"):
            assert stat.S_IMODE(path.lstat().st_mode) & ~0o777 == 0


def replying(key: str, reply: str) -> str:
    """Return the trick of a receiver that changes each of its replies with a key: Python with `message`."""
    return f"""
if name == "push_host":
    from flagscale_deploy.remote.push import orders
    real = orders.send
    def send(message):
        if {key!r} in message:
            {reply}
        real(message)
    orders.send = send
"""


JUNK = [
    "None",
    "-1",
    "1 << 70",
    '"x"',
    "[]",
    "[None]",
    '["../x"]',
    "[1 << 40]",
    "{}",
    'float("nan")',
    "True",
    '"\\udcff\\u2603"',
]
KEYS = ["network", "looked", "missing", "different", "modes", "blocked", "have", "needed", "free", "port", "got",
        "received", "finished", "hashed"]  # fmt: skip
REPLIES = [(key, junk) for key in KEYS for junk in JUNK]


@pytest.mark.parametrize(("key", "junk"), REPLIES if ALL else REPLIES[:: len(REPLIES) // 24 | 1])
def test_a_receiver_that_replies_anything_is_named_and_the_others_get_all(
    homes: Homes, model: Path, key: str, junk: str
) -> None:
    homes.tricks["gpu02"] = replying(key, f"message[{key!r}] = {junk}")
    report = push_or_error(homes, f"gpu01:~/{DEST}")
    if isinstance(report, DeployError):
        assert str(report).startswith("gpu02: "), report
        return
    assert set(report.failed) <= {"gpu02"}
    assert (homes / "gpu03" / DEST / "model.bin").read_bytes() == (model / "model.bin").read_bytes()
    assert "gpu02" in report.failed or (homes / "gpu02" / DEST / "model.bin").exists()


def test_a_receiver_that_leaves_out_what_belongs_together_is_named(
    homes: Homes, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "SILENCE_SECONDS", 5.0)
    for key, missing in (("missing", "blocked"), ("have", "free"), ("network", "network")):
        homes.tricks["gpu02"] = replying(key, f"message.pop({missing!r}, None)")
        report = push_or_error(homes, f"gpu01:~/{DEST}", checksum=True)
        assert isinstance(report, PushReport)
        assert set(report.failed) <= {"gpu02"}


def push_or_error(homes: Homes, source: str, **choices: Any) -> PushReport | DeployError:
    try:
        return homes.push(source, "~/models/m", **choices)
    except DeployError as error:
        return error


def test_a_receiver_that_sends_without_end_does_not_hold_up_the_others(
    homes: Homes, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hashes for ever, a byte at a time, and says so as fast as it can."""
    monkeypatch.setattr(session, "SILENCE_SECONDS", 5.0)
    trick = "n = 0\n            while True:\n                n += 1; real({'hashed': n})"
    homes.tricks["gpu02"] = replying("looked", trick)
    began = time.monotonic()
    report = homes.push(f"gpu01:~/{DEST}")
    assert time.monotonic() - began < 90
    assert set(report.failed) == {"gpu02"}
    assert (homes / "gpu03" / DEST / "model.bin").exists()


CLAIMS = [
    ("got", "{'received': n}"),
    ("got", "{'received': n << 20}"),
    ("got", "{'got': 0}"),
    ("network", "{'hashed': n << 20}"),
    ("missing", "{'hashed': n << 10}"),
    ("port", "{'hashed': n << 10}"),
    ("finished", "{'hashed': n << 10}"),
]


def test_receivers_that_only_claim_to_go_on_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at the same time, each with a claim of its own: what is given up is given up after 5 s."""
    monkeypatch.setattr(transfer, "STALL_SECONDS", 5.0)
    monkeypatch.setattr(session, "SILENCE_SECONDS", 5.0)
    names = tuple(f"gpu{number:02}" for number in range(1, len(CLAIMS) + 3))
    (tmp_path / "homes").mkdir()
    homes = Homes(tmp_path / "homes", names)
    source, honest, *hostile = names
    write_model(homes / source / DEST)
    for name, (key, claim) in zip(hostile, CLAIMS, strict=True):
        trick = f"""n = 0
            import time
            while True:
                n += 1; real({claim}); time.sleep(0.5)"""
        homes.tricks[name] = replying(key, trick)
    events: list[Event] = []
    began = time.monotonic()
    report = homes.push(f"{source}:~/{DEST}", say=events.append)
    assert time.monotonic() - began < 180
    assert set(report.failed) == set(hostile)
    assert sum(event.state == "done" for event in events) <= 2
    assert (homes / honest / DEST / "model.bin").read_bytes() == (homes / source / DEST / "model.bin").read_bytes()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("program", ["push_source", "push_host"])
def test_no_host_connects_to_itself_or_to_a_link_because_another_says_so(
    homes: Homes, model: Path, address: str, program: str
) -> None:
    interface = {"name": "eth0", "addresses": [address], "mtu": 1500, "up": True, "speed": None}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        claims = {"network": {"interfaces": [interface], "default_address": address}, "port": listener.getsockname()[1]}
        claiming = "".join(
            replying(key, f"message[{key!r}] = {claim!r}").replace("real", f"real_{key}")
            for key, claim in claims.items()
        )
        homes.tricks["gpu01"] = claiming.replace("push_host", program)
        events: list[Event] = []
        report = homes.push(f"gpu01:~/{DEST}" if program == "push_source" else model, say=events.append)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert report.exit_code == 0
    assert (homes / "gpu03" / DEST / "model.bin").exists()
    if program == "push_source":
        assert any("set node_ip in the inventory" in event.text for event in events)


SOURCE_REPLIES = [
    ("digests", "message['digests'] = []"),
    ("digests", "message['digests'] = ['A' * 43 + '=']"),
    ("digests", "message['digests'] = message['digests'][:1] * 2"),
    ("digests", "message['digests'] = [None, None]"),
    ("port", "message['port'] = 1 << 40"),
    (
        "network",
        "message['network'] = {'interfaces': [{'name': 'x', 'addresses': ['$(id)']}], 'default_address': None}",
    ),
    ("network", "message['network'] = {'interfaces': 3}"),
]


@pytest.mark.parametrize(("key", "reply"), SOURCE_REPLIES)
def test_a_source_that_replies_anything_is_named(homes: Homes, model: Path, key: str, reply: str) -> None:
    homes.tricks["gpu01"] = replying(key, reply).replace('"push_host"', '"push_source"')
    with pytest.raises(RemoteError, match=r"^gpu01: .*malformed"):
        homes.push(f"gpu01:~/{DEST}")


def test_a_source_that_sends_other_bytes_than_it_hashed_is_named(homes: Homes, model: Path) -> None:
    """Nothing of them gets a name on the others."""
    homes.tricks["gpu01"] = """
if name == "push_source":
    from flagscale_deploy.remote.push import source
    import os
    def open_(self, file):
        return os.open("/dev/zero", os.O_RDONLY)
    from flagscale_deploy.remote.programs import push_source
    class Server(push_source.PieceServer):
        def __init__(self, address, token, piece, opened, *more):
            super().__init__(address, token, piece, lambda file: os.open("/dev/urandom", os.O_RDONLY), *more)
    push_source.PieceServer = Server
    source.Source.read = lambda self, file, offset, length: bytes(length)
"""
    report = homes.push(f"gpu01:~/{DEST}")
    assert set(report.failed) == {"gpu02", "gpu03"}
    for name in ("gpu02", "gpu03"):
        assert not (homes / name / DEST / "model.bin").exists()


def test_a_source_that_sends_pieces_of_other_lengths_through_the_operator_is_named(homes: Homes, model: Path) -> None:
    for trick in (
        "message['data'] = 'AAAA'",
        "message['data'] = '!'",
        "message['data'] = 'A' * (4 << 20)",
        "del message['data']",
    ):
        homes.tricks["gpu01"] = (replying("read", trick) + replying("port", "message = {'refused': 'no'}")).replace(
            '"push_host"', '"push_source"'
        )
        with pytest.raises(RemoteError, match=r"^gpu01: "):
            homes.push(f"gpu01:~/{DEST}")


def test_a_text_of_a_host_is_shown_in_part(homes: Homes, model: Path) -> None:
    homes.tricks["gpu02"] = replying("have", "message.clear(); message['refused'] = 'no room ' * 100_000")
    with pytest.raises(CheckError, match=r"gpu02: .*no room") as error:
        homes.push(f"gpu01:~/{DEST}")
    assert len(str(error.value)) < 1000


SERVING = {
    "other bytes": "connection.sendall(REPLY.pack(PRESENT, bytes_of(piece)) + os.urandom(bytes_of(piece)))",
    "another size": "connection.sendall(REPLY.pack(PRESENT, bytes_of(piece) + 1)); real(self, connection, number)",
    "a huge size": "connection.sendall(REPLY.pack(PRESENT, (1 << 64) - 1)); connection.sendall(bytes(1 << 20))",
    "nothing": "connection.close()",
    "a byte now and then": "connection.sendall(REPLY.pack(PRESENT, bytes_of(piece))); drip(connection)",
}


@pytest.mark.parametrize("what", SERVING)
def test_a_receiver_that_serves_anything_keeps_nothing_from_the_others(homes: Homes, model: Path, what: str) -> None:
    """It has all that they lack, so that they ask it; what it does not give them comes from elsewhere."""
    shutil.copytree(model, homes / "gpu02" / DEST, symlinks=True)
    homes.tricks["gpu02"] = f"""
import os, time
from flagscale_deploy.remote.push import serve
from flagscale_deploy.remote.push.serve import PRESENT, REPLY, bytes_of
real = serve.PieceServer._send
def drip(connection):
    while True:
        connection.sendall(b"?")
        time.sleep(0.2)
def send(self, connection, number):
    open(os.path.expanduser("~/asked"), "w").close()
    piece = self._find_piece(number)
    {SERVING[what]}
serve.PieceServer._send = send
"""
    report = homes.push(f"gpu01:~/{DEST}")
    assert (homes / "gpu02/asked").exists()
    assert set(report.failed) <= {"gpu02"}
    assert (homes / "gpu03" / DEST / "model.bin").read_bytes() == (model / "model.bin").read_bytes()


def test_listeners_know_the_addresses_of_their_peers(homes: Homes, model: Path) -> None:
    homes.tricks["gpu02"] = """
if name == "push_host":
    import os
    from flagscale_deploy.remote.programs import push_host
    class Server(push_host.PieceServer):
        def __init__(self, *words):
            super().__init__(*words)
            with open(os.path.expanduser("~/peers"), "w") as file:
                file.write(" ".join(self._server._peers))
    push_host.PieceServer = Server
"""
    request = homes.request()
    addresses = {"gpu01": "127.0.0.1", "gpu02": "127.0.0.2", "gpu03": "127.0.0.3"}
    hosts = tuple(replace(host, node_ip=addresses[host.name]) for host in request.inventory.hosts)
    push(replace(request, inventory=replace(request.inventory, hosts=hosts)), f"gpu01:~/{DEST}", "~/models/m")
    assert set((homes / "gpu02/peers").read_text().split()) >= set(addresses.values())
