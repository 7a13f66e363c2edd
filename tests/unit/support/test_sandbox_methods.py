"""Methods of texts, bytes, numbers and lists in a template: none takes long for what it costs."""

from __future__ import annotations

import time
from encodings.aliases import aliases

import pytest

from flagscale_deploy.support.sandbox import WRONG, BoundedEnvironment
from flagscale_deploy.support.template_budget import Budget

SECONDS = 20.0
ENVIRONMENT = BoundedEnvironment()
TEXT = "".join(chr(0x4E00 + number) for number in range(20_000))
VALUES: dict[str, object] = {
    "text": TEXT,
    "letters": "a" * 200_000,
    "bytes": b"a" * 200_000,
    "number": 1 << 16_000,
    "list": ["a"] * 60_000,
    "dict": dict.fromkeys(map(str, range(20_000)), "a"),
}
METHODS = [(kind, name) for kind, value in VALUES.items() for name in dir(value) if not name.startswith("_")]
ARGUMENTS = ("", "'a'", "'a' * 500", "50000", "'a', 'b'", "'a' * 500 ~ 'b'")
CODECS = sorted(
    {*aliases.values(), "punycode", "idna", "raw_unicode_escape", "unicode_escape", "PUNYCODE", "undefined"}
)


def seconds(expression: str, value: object) -> float:
    """Return the processor time of an expression in a loop, until the budget is spent, or it fails."""
    template = ENVIRONMENT.from_string("{% for _ in range(100) %}{{ '' if " + expression + " }}{% endfor %}")
    began = time.process_time()
    try:
        with Budget(0).share():
            template.render(v=value)
    except WRONG:
        pass
    return time.process_time() - began


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_no_method_takes_long(kind: str, name: str) -> None:
    for arguments in ARGUMENTS:
        assert seconds(f"v.{name}({arguments})", VALUES[kind]) < SECONDS


def test_no_codec_takes_long() -> None:
    for codec in CODECS:
        for call in (f"v.encode('{codec}')", f"v.encode(encoding='{codec}', errors='ignore')"):
            assert seconds(call, TEXT) < SECONDS, call
        assert seconds(f"v.decode('{codec}', 'ignore')", b"a" * 200_000) < SECONDS, codec


@pytest.mark.parametrize("codec", ["punycode", "idna", "Punycode", "puny_code", "rot13", "zip"])
def test_a_codec_that_may_take_long_is_refused(codec: str) -> None:
    for call in (f"v.encode('{codec}')", f"v.encode(encoding='{codec}')"):
        with pytest.raises(WRONG, match="codecs in a template are"):
            ENVIRONMENT.from_string("{{ " + call + " }}").render(v="a")


@pytest.mark.parametrize("codec", ["", "'utf-8'", "'UTF_8'", "'ascii'", "'latin-1'", "encoding='utf8'"])
def test_ordinary_codecs_are_there(codec: str) -> None:
    assert ENVIRONMENT.from_string("{{ v.encode(" + codec + ").decode(" + codec + ") }}").render(v="a") == "a"
