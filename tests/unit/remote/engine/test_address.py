"""An address and a port, and nothing else, is taken of the URL that another host gave."""

from __future__ import annotations

import pytest

from flagscale_deploy.remote.engine.address import parse


@pytest.mark.parametrize(
    ("url", "place"), [("http://10.0.0.1:80", ("10.0.0.1", 80)), ("http://[fd00::1]:1", ("fd00::1", 1))]
)
def test_a_place_is_an_address_and_a_port(url: str, place: object) -> None:
    assert parse(url) == place


@pytest.mark.parametrize(
    "before", ["", "x", "http://", "http://a@", "http://a:b@", "https://", "HTTP://", " http://", "//"]
)
@pytest.mark.parametrize(
    "host", ["", "10.0.0.1", "name", "[fd00::1]", "[fd00::1%eth0]", "fd00::1", "[::1", "10.1", "0x7f.1", "1"]
)
def test_everything_else_is_none(before: str, host: str) -> None:
    ends = (
        "",
        ":",
        ":80",
        ":080",
        ":+80",
        ":0",
        ":-1",
        ":65536",
        ":80/",
        ":80/x",
        ":80?",
        ":80?x=",
        ":80#",
        ":80 ",
        ":8_0",
    )
    right = [after for after in ends if parse(before + host + after) is not None]
    assert right == ([":80"] if before == "http://" and host in ("10.0.0.1", "[fd00::1]") else [])
