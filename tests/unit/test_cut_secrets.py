"""Secrets in texts that are cut: what is shown of one ends with its first characters, wherever the cut is."""

from __future__ import annotations

import json
import shlex
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Callable

import pytest

from flagscale_deploy.diagnosis.find import quoted as quoted_line
from flagscale_deploy.errors import Fault, HostError
from flagscale_deploy.logs.read import CUT
from flagscale_deploy.output.console import Console
from flagscale_deploy.remote.logs import lines
from flagscale_deploy.remote.wire import cut
from flagscale_deploy.secrets import HIDDEN, Redactor
from flagscale_deploy.support.quote import quoted
from flagscale_deploy.text import LONGEST_LINE, one_line
from flagscale_deploy.transport.base import Ends
from flagscale_deploy.transport.replies import SHOWN, brief


def output(text: str) -> str:
    """Return what is kept of an output of which 500 bytes may be at its beginning and its end."""
    kept = Ends(1000)
    kept.add(text.encode() + b"." * 2000)
    return kept.kept().decode()


SECRETS = ("s3cr3tS3cr3tValue0123456789abcdef", 'it\'s a "pass phrase" of 40 characters & more', "Zz9" * 300)
CUTTERS: dict[str, tuple[Callable[[str], str], int]] = {
    "a reply": (brief, SHOWN),
    "a line of an error": (one_line, LONGEST_LINE),
    "a line of a log": (lambda text: "".join(lines.Cutter().feed(text.encode() + b"\n")), lines.LONGEST),
    "a line of a log, cut here": (lambda text: text[: lines.LONGEST] + CUT, lines.LONGEST),
    "a line in a diagnosis": (quoted_line, 500),
    "a value": (quoted, 77),
    "an output": (output, 500),
    "a text of a server": (lambda text: cut(text, 500), 500),
}
LEAST = 6
"""As many characters may be seen of a secret."""


def forms(secret: str) -> list[str]:
    """Return a secret as programs write it."""
    encoded = b64encode(secret.encode()).decode().rstrip("=")[:-1]
    written = (secret, shlex.quote(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1], encoded)
    return list(dict.fromkeys(written))


def shown_of(form: str, text: str) -> int:
    """Return how many of the first characters of a text are shown."""
    return bisect_left(range(1, len(form) + 1), 1, key=lambda length: form[:length] not in text)


@pytest.mark.parametrize("secret", SECRETS, ids=["word", "phrase", "long"])
@pytest.mark.parametrize("name", CUTTERS)
def test_no_part_of_a_secret_is_seen_before_a_cut(name: str, secret: str) -> None:
    cut_text, limit = CUTTERS[name]
    redactor = Redactor([secret])
    for form in forms(secret):
        places = sorted({*range(0, len(form) + 1, max(1, len(form) // 12)), 1, LEAST - 1, LEAST, len(form) - 1})
        for inside in places:
            text = "." * (limit - inside) + form + "." * 50
            assert shown_of(form, redactor.redact(cut_text(text))) <= LEAST, (inside, form[:20])


def test_what_ends_a_cut_text_by_chance_and_other_texts_stay() -> None:
    redactor = Redactor(["password-of-mine", "abcdef123456"])
    for text in ("wrong password", "password …", "a…b", "abc…", "abcdefg… (300 characters)", "…", "password-off…"):
        expected = text.replace("password", HIDDEN) if text == "password …" else text
        assert redactor.redact(text) == expected


def test_errors_and_tables_hide_what_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    secret = SECRETS[0]
    console = Console(redactor=Redactor([secret]))
    problem = brief("x" * (SHOWN - 20) + secret)
    console.error(*HostError("gpu01", problem).lines, *Fault("gpu01", problem).lines)
    console.print(problem)
    console.table("", ["A"], [[problem]])
    console.json({"a": problem})
    written = capsys.readouterr()
    assert shown_of(secret, written.out + written.err) <= 2
    assert (written.out + written.err).count(HIDDEN) == 5


def test_many_cuts_take_no_long_time() -> None:
    redactor = Redactor([*SECRETS, "aaaaaaaaaaaa", "a" * 16_000])
    for text in ("…" * 200_000, "aaaaa…" * 30_000, "a" * 200_000 + "…", "Zz9…" * 50_000):
        assert len(redactor.redact(text)) > 0
