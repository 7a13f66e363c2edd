"""Pushes by the very programs that run on hosts, between directories of this machine, over loopback."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.api import push
from flagscale_deploy.errors import CheckError, HostsUnreachableError, InputError, RemoteError
from flagscale_deploy.events import Event
from flagscale_deploy.remote.push.tree import STAGING
from tests.component.push.homes import Homes, content

SIZE = 9 * (1 << 20) + 77
DEST = "models/m"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Provide a model with weights, a configuration, a script, an empty file, links, and names to stumble over."""
    root = tmp_path / "model"
    (root / "sub/empty").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(random.Random(1).randbytes(SIZE))
    (root / "config.json").write_text("{}")
    (root / "sub/run.sh").write_text("#!/bin/sh\n")
    (root / "sub/run.sh").chmod(0o4750)
    (root / "none").touch()
    (root / "link").symlink_to("sub/run.sh")
    (root / "dangling").symlink_to("/nowhere/at all")
    for name in (b"-rf", b"a\nb", b"$(touch pwned)", b"\xff\xfe", "ü☃".encode(), b"x" * 255):
        (root / os.fsdecode(name)).write_bytes(name)
    return root


def whole(model: Path) -> dict[str, Any]:
    """Return what hosts should have: no setuid bit."""
    (model / "sub/run.sh").chmod(0o750)
    return content(model)


def without_outside(model: Path) -> dict[str, Any]:
    """Return what hosts should have of another host's tree: no link that leads out of it."""
    return {path: what for path, what in whole(model).items() if path != "dangling"}


def programs(homes: Homes) -> list[int]:
    """Programs of a push that still run on these hosts."""
    paths = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes()
        except OSError:
            continue
        if any(f"HOME={homes / name}".encode() in environment.split(b"\0") for name in homes.names):
            paths.append(int(path.name))
    return paths


def test_all_hosts_get_the_same_tree_and_the_source_sends_it_once(homes: Homes, model: Path) -> None:
    report = homes.push(model)
    assert report.exit_code == 0
    for name in homes.names:
        assert content(homes / name / DEST) == whole(model)
        assert report.hosts[name].bytes == report.bytes
    assert report.bytes <= report.sent < 1.5 * report.bytes  # once, but for what came late
    assert (homes / "gpu01" / DEST / "config.json").stat().st_mtime_ns == (model / "config.json").stat().st_mtime_ns
    assert programs(homes) == []
    assert not list(homes.path.rglob("pwned"))


def test_a_push_from_here_may_take_any_number_of_messages(
    homes: Homes, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host confirms each chunk: 400 messages a second at 100 MB/s. Chunks are smaller here."""
    monkeypatch.setattr("flagscale_deploy.push.source.CHUNK", 4096)
    assert homes.push(model, "~/models/m", "gpu01").exit_code == 0
    assert content(homes / "gpu01" / DEST) == whole(model)


def test_a_second_push_sends_and_reads_nothing(homes: Homes, model: Path) -> None:
    homes.push(model)
    before = content(homes / "gpu02" / DEST), (homes / "gpu02" / DEST / "model.safetensors").stat()
    report = homes.push(model)
    assert (report.exit_code, report.sent) == (0, 0)
    assert {host.bytes for host in report.hosts.values()} == {0}
    assert not any(host.before for host in report.hosts.values())
    assert (content(homes / "gpu02" / DEST), (homes / "gpu02" / DEST / "model.safetensors").stat()) == before


def test_only_what_differs_is_sent(homes: Homes, model: Path) -> None:
    homes.push(model)
    spoilt = homes / "gpu02" / DEST
    kept = (spoilt / "model.safetensors").stat()
    (spoilt / "config.json").write_text("[]")
    (spoilt / "sub/run.sh").chmod(0o600)
    (spoilt / "link").unlink()
    (spoilt / "own.txt").write_text("somebody's own")
    report = homes.push(model)
    differed = report.hosts["gpu02"].before
    assert (differed.missing, differed.different, differed.modes) == (("link",), ("config.json",), ("sub/run.sh",))
    assert 0 < report.hosts["gpu02"].bytes < 2000
    assert report.sent == 0  # the others have it
    assert (spoilt / "own.txt").read_text() == "somebody's own"
    (spoilt / "own.txt").unlink()
    assert content(spoilt) == whole(model)
    assert (spoilt / "model.safetensors").stat().st_ino == kept.st_ino


def test_a_changed_byte_of_the_same_time_is_found_with_checksum_at_the_latest(homes: Homes, model: Path) -> None:
    homes.push(model)
    weights = homes / "gpu01" / DEST / "model.safetensors"
    kept = weights.stat()
    with weights.open("r+b") as file:
        file.seek(5 << 20)
        file.write(b"!")
    os.utime(weights, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    report = homes.push(model, check=True, checksum=True)
    assert report.hosts["gpu01"].before.different == ("model.safetensors",)
    assert not report.hosts["gpu02"].before


def test_check_says_what_differs_and_changes_nothing(homes: Homes, model: Path) -> None:
    report = homes.push(model, check=True)
    assert report.exit_code == 1
    assert "model.safetensors" in report.hosts["gpu03"].before.missing
    assert not (homes / "gpu03/models").exists()
    homes.push(model)
    assert homes.push(model, check=True).exit_code == 0
    (homes / "gpu01" / DEST / "config.json").unlink()
    report = homes.push(model, check=True)
    assert (report.exit_code, report.hosts["gpu01"].before.missing) == (1, ("config.json",))
    assert not (homes / "gpu01" / DEST / "config.json").exists()


def test_a_tree_of_one_host_goes_to_the_others(homes: Homes, model: Path) -> None:
    homes.push(model, "~/models/m", "gpu02")
    report = homes.push("gpu02:~/models/m")
    assert report.exit_code == 0
    assert set(report.hosts) == {"gpu01", "gpu03"}
    assert report.bytes <= report.sent < 1.5 * report.bytes  # once, but for what came late
    assert any("left out, because they lead out of gpu02:~/models/m: dangling" in note for note in report.notes)
    for name in ("gpu01", "gpu03"):
        assert content(homes / name / DEST) == without_outside(model)
    assert homes.push("gpu02:~/models/m", "~/copy", "gpu02", "gpu03").exit_code == 0
    assert content(homes / "gpu02/copy") == content(homes / "gpu03/copy") == without_outside(model)
    assert programs(homes) == []


def test_a_file_of_its_own(homes: Homes, model: Path) -> None:
    homes.push(model / "config.json", "~/models/a.json")
    homes.push(model / "config.json", "~/models/b/")
    homes.push(model / "none", "~/models/none")
    assert (homes / "gpu01/models/a.json").read_text() == (homes / "gpu01/models/b/config.json").read_text() == "{}"
    assert (homes / "gpu03/models/none").read_bytes() == b""
    assert sorted(path.name for path in (homes / "gpu01/models").iterdir()) == ["a.json", "b", "none"]


def test_what_an_interrupted_push_sent_is_not_sent_again(homes: Homes, model: Path, tmp_path: Path) -> None:
    """As such a push leaves it: whole blocks, a torn one, and holes."""
    homes.push(model)
    for name in homes.names:
        root = homes / name / DEST
        with pytest.raises(KeyboardInterrupt):
            homes.push(model, "~/models/m", name, say=begin_then_stop(root, model))
        assert len(list((root / os.fsdecode(STAGING)).iterdir())) == 1
        assert not (root / "model.safetensors").exists()
    assert programs(homes) == []
    report = homes.push(model)
    assert report.exit_code == 0
    for name in homes.names:
        assert content(homes / name / DEST) == whole(model)
        assert 3 << 20 <= report.hosts[name].bytes <= 4 << 20
    assert report.sent <= 6 << 20


def begin_then_stop(root: Path, model: Path) -> Callable[[Event], None]:
    """Take the weights away before the push looks; stop it when it has made room for them, with five blocks there."""
    (root / "model.safetensors").unlink()

    def say(event: Event) -> None:
        staging = root / os.fsdecode(STAGING)
        if event.text == "sending":
            (partial,) = staging.iterdir()
            data = (model / "model.safetensors").read_bytes()
            with partial.open("r+b") as file:
                file.write(data[: 5 << 20])
                file.seek(8 << 20)
                file.write(data[8 << 20 : SIZE][:-1] + b"!")
            raise KeyboardInterrupt

    return say


def test_a_host_whose_program_dies_is_named_and_the_others_get_all(homes: Homes, model: Path) -> None:
    def say(event: Event) -> None:
        if event.text == "sending":
            for pid in programs(homes):
                if f"HOME={homes / 'gpu02'}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    os.kill(pid, signal.SIGKILL)

    report = homes.push(model, say=say)
    assert set(report.failed) == {"gpu02"}
    assert report.exit_code == 1
    for name in ("gpu01", "gpu03"):
        assert content(homes / name / DEST) == whole(model)
    assert programs(homes) == []


def test_links_at_dest_are_replaced_and_never_followed(homes: Homes, model: Path, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "run.sh").write_text("precious")
    (treasure / "config.json").write_text("precious")
    for name in homes.names:
        root = homes / name / DEST
        root.mkdir(parents=True)
        (root / "sub").symlink_to(treasure)
        (root / "config.json").symlink_to(treasure / "config.json")
    assert homes.push(model).exit_code == 0
    assert content(homes / "gpu01" / DEST) == whole(model)
    assert {path.read_text() for path in treasure.iterdir()} == {"precious"}


def test_a_directory_in_the_place_of_a_file_is_said_before_anything_is_sent(homes: Homes, model: Path) -> None:
    (homes / "gpu02" / DEST / "config.json").mkdir(parents=True)
    with pytest.raises(CheckError, match=r"gpu02: config.json is a directory there"):
        homes.push(model)
    assert not (homes / "gpu01/models").exists()
    assert programs(homes) == []


def test_a_dest_that_cannot_be_written_is_said_before_anything_is_sent(homes: Homes, model: Path) -> None:
    (homes / "gpu02/models").write_text("a file where a directory should be")
    with pytest.raises(CheckError, match=r"gpu02: ~/models/m: .*(Not a directory|File exists)"):
        homes.push(model)
    assert not (homes / "gpu01/models").exists()
    assert (homes / "gpu02/models").read_text().startswith("a file")


def test_no_room_on_one_host_stops_the_push_and_leaves_nothing(
    homes: Homes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = tmp_path / "huge"
    huge.mkdir()
    with (huge / "model.bin").open("wb") as file:
        file.truncate(2 * shutil.disk_usage(tmp_path).free)
    monkeypatch.setattr("flagscale_deploy.remote.push.hashes.of_files", pretend_hashes)
    with pytest.raises(CheckError, match=r"gpu01: ~/models/m needs .* [GT]iB, and .* are free"):
        homes.push(huge)
    assert not (homes / "gpu01/models").exists()


def pretend_hashes(_open: Any, sizes: Any, _told: Any = None) -> dict[int, bytes]:
    """Of a file too large for a test to read: hashes that no block of it has."""
    from flagscale_deploy.remote.push.tree import blocks

    return {file: b"?" * 32 * len(blocks(file, size)) for file, size in sizes}


def test_a_sparse_file_is_sent_without_its_holes(homes: Homes, tmp_path: Path) -> None:
    (tmp_path / "sparse").mkdir()
    with (tmp_path / "sparse/file").open("wb") as file:
        file.truncate(3 << 30)
        file.seek(2 << 30)
        file.write(b"here")
    report = homes.push(tmp_path / "sparse")
    assert 16 << 20 <= report.sent <= 48 << 20  # a block; to each, if it came late
    paths = homes / "gpu03" / DEST / "file"
    assert paths.stat().st_size == 3 << 30
    assert paths.stat().st_blocks * 512 < 32 << 20
    with paths.open("rb") as file:
        file.seek(2 << 30)
        assert file.read(5) == b"here\0"


def test_a_source_that_is_not_there_or_empty(homes: Homes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        homes.push(tmp_path / "nothing")
    with pytest.raises(RemoteError, match=r"gpu01: ~/nothing cannot be read: .*No such file"):
        homes.push("gpu01:~/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is nothing in"):
        homes.push(tmp_path / "empty")
    (homes / "gpu01/empty").mkdir()
    with pytest.raises(RemoteError, match="gpu01: there is nothing in ~/empty"):
        homes.push("gpu01:~/empty")
    assert programs(homes) == []


def test_two_pushes_to_one_place_do_not_mix(homes: Homes, model: Path) -> None:
    import fcntl

    (homes / "gpu01" / DEST / os.fsdecode(STAGING)).mkdir(parents=True)
    descriptor = os.open(homes / "gpu01" / DEST / os.fsdecode(STAGING), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(CheckError, match="gpu01: ~/models/m: another push writes there"):
            homes.push(model)
    finally:
        os.close(descriptor)
    assert homes.push(model).exit_code == 0


def test_what_cannot_be_sent_is_noted(homes: Homes, model: Path) -> None:
    os.mkfifo(model / "pipe")
    report = homes.push(model, check=True)
    assert any("left out, because it is not a file: pipe" in note for note in report.notes)
    assert any("links that lead out of" in note and "dangling" in note for note in report.notes)


def test_hosts_without_python_are_unreachable_together(
    homes: Homes, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(homes), "connect", lambda _self, host, _timeout: refuse(host))
    with pytest.raises(HostsUnreachableError, match=r"gpu01: no way(.|\n)*gpu03: no way"):
        homes.push(model)


def refuse(host: Any) -> Any:
    from flagscale_deploy.errors import UnreachableError
    from flagscale_deploy.transport.local import LocalConnection

    class Refusing(LocalConnection):
        def open(self) -> None:
            raise UnreachableError(self.host.name, "no way")

    return Refusing(host)


def test_hosts_that_cannot_call_the_source_get_its_pieces_through_here(
    homes: Homes, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that belongs to nobody: no host can listen there, nor be called."""
    homes.push(model, "~/models/m", "gpu02")
    events: list[Event] = []
    request = homes.request()
    nowhere = tuple(
        replace(host, node_ip="127.0.0.9" if host.name != "gpu02" else "192.0.2.1") for host in request.inventory.hosts
    )
    text = homes.inventory.read_text().replace("{name: gpu02,", "{name: gpu02, node_ip: 192.0.2.1,")
    homes.inventory.write_text(text)
    request = replace(request, inventory=replace(request.inventory, hosts=nowhere))
    report = push(request, "gpu02:~/models/m", "~/models/m", say=events.append)
    assert report.exit_code == 0
    assert any("cannot listen on 192.0.2.1" in event.text for event in events)
    for name in ("gpu01", "gpu03"):
        assert content(homes / name / DEST) == without_outside(model)
    assert programs(homes) == []
