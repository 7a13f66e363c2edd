"""SRC and DEST as people write them, and where nothing may be put."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagscale_deploy.errors import InputError
from flagscale_deploy.push.arguments import dest_of_file, parse_arguments
from flagscale_deploy.remote.push.place import refused, root_of

HOSTS = ["gpu01", "gpu02", "10.0.0.1", "rack:gpu01"]


def test_a_host_and_a_path() -> None:
    words = parse_arguments("gpu01:/models/x", "/models/x", HOSTS)
    assert (words.host, words.path, words.dest) == ("gpu01", "/models/x", "/models/x")
    assert words.is_source("gpu01")
    assert not words.is_source("gpu02")
    assert parse_arguments("rack:gpu01:~/x", "~/x", HOSTS).host == "rack:gpu01"


def test_a_path_here_may_hold_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpu01:x").touch()
    for path in ("gpu01:x", "./gpu09:y", "/models/a:b", "models"):
        assert parse_arguments(path, "/models/x", HOSTS).host == ""


def test_an_unknown_host_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no host 'gpu1'.*\n.*did you mean gpu01"):
        parse_arguments("gpu1:/models/x", "/models/x", HOSTS)


@pytest.mark.parametrize(
    "dest", ["/", "//", "/etc", "/etc/x", "/usr/bin/x", "/home", "/opt/", "/var/lib", "/models/../etc/x", "~",
             "~/", "~/.", "models", "", "./x", "~bob/x", "/models/\0x", "//etc/x"],
)  # fmt: skip
def test_a_dest_that_is_no_place_for_a_model_is_refused_before_any_host_is_asked(dest: str) -> None:
    with pytest.raises(InputError, match="DEST"):
        parse_arguments("models", dest, HOSTS)


@pytest.mark.parametrize(
    "dest", ["/models", "/models/x", "~/models", "/opt/models", "/home/me/x", "/srv/x", "/usr/local/models",
             "/dev/shm/x", "/var/lib/models", "/mnt/data"],
)  # fmt: skip
def test_a_dest_of_its_own_is_taken(dest: str) -> None:
    assert parse_arguments("models", dest, HOSTS).dest == dest


@given(st.sampled_from(["/etc", "/usr/lib", "/proc", "/boot"]), st.text("ab/.", max_size=8))
def test_nothing_below_a_system_directory_is_taken(place: str, rest: str) -> None:
    import posixpath

    normal = posixpath.normpath(f"{place}/{rest}")
    if normal == place or normal.startswith(f"{place}/"):
        assert refused(normal)


def test_on_a_host_links_and_the_home_are_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").symlink_to("/etc")
    assert "system" in root_of(str(tmp_path / "models/x"), False)[1]
    assert root_of(str(tmp_path), False)[1]
    assert root_of("~/weights", False) == (str(tmp_path / "weights").encode(), "")
    assert root_of(str(tmp_path / "weights/model.bin"), True) == (str(tmp_path / "weights").encode(), "")


def test_a_file_goes_into_a_dest_that_ends_in_a_slash() -> None:
    assert dest_of_file("/models/", "a.bin") == "/models/a.bin"
    assert dest_of_file("/models/b.bin", "a.bin") == "/models/b.bin"
