from __future__ import annotations

import base64
import copy
import json
import pickle
import shlex
import threading
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flagscale_deploy.secrets import HIDDEN, Redactor, Secret, is_secret_name

VALUE = "s3cr3t p@ss/w'rd+\"$(x)\\ü"


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "api-key", "api_key", "--api-key", "VLLM_API_KEY", "db_password", "AWS_SECRET_ACCESS_KEY", "KEY"],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer",
        "max-num-batched-tokens",
        "ssl-keyfile",
        "KEYBOARD",
        "MONKEY",
        "CUDA_VISIBLE_DEVICES",
        "allow-credentials",
    ],
)
def test_names_of_other_things_are_not_secret(name: str) -> None:
    assert not is_secret_name(name)


def test_a_secret_never_shows_itself() -> None:
    secret = Secret(VALUE)
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r:>20}",
        f"{secret:>20}",
        str([secret]),
        str({"k": secret}),
    ]
    assert all(VALUE not in text and HIDDEN in text for text in shown)
    assert secret.reveal() == VALUE


def test_a_secret_cannot_be_serialised_by_accident() -> None:
    with pytest.raises(TypeError):
        json.dumps({"key": Secret(VALUE)})
    with pytest.raises(TypeError):
        pickle.dumps(Secret(VALUE))
    assert copy.deepcopy(Secret(VALUE)) == Secret(VALUE)


def test_secrets_compare_by_value() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a") != "a"


FORMS = {
    "plain": VALUE,
    "shell-quoted": shlex.quote(VALUE),
    "within a quoted word": shlex.quote(f"--api-key={VALUE}"),
    "quoted twice": shlex.quote(shlex.quote(VALUE)),
    "an ssh command line": shlex.quote("bash -c " + shlex.quote(f"export K={shlex.quote(VALUE)}")),
    "URL path": "http://h/" + quote(VALUE),
    "URL query": urlencode({"key": VALUE}),
    "URL, everything encoded": quote(VALUE, safe=""),
    "form": quote_plus(VALUE),
    "JSON": json.dumps({"key": VALUE}),
    "JSON in a shell word": shlex.quote(json.dumps({"key": VALUE})),
    "JSON in JSON": json.dumps(json.dumps({"key": VALUE})),
    "Python repr": repr([VALUE]),
    "base64": base64.b64encode(VALUE.encode()).decode(),
    "basic authentication": base64.b64encode(f"user:{VALUE}".encode()).decode(),
    "URL-safe base64": base64.urlsafe_b64encode(f"x:{VALUE}:y".encode()).decode(),
    "base64 in a URL": quote(base64.b64encode(VALUE.encode()).decode(), safe=""),
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_a_value_is_hidden(text: str) -> None:
    redacted = Redactor([Secret(VALUE)]).redact(f"before {text} after")
    assert HIDDEN in redacted
    for part in ("s3cr3t", "czNjcjN0", "NjcjN0", "zM2NyM3Q", "3IzdC", "p@ss"):
        assert part not in redacted, redacted
    assert redacted.startswith("before ")
    assert redacted.endswith(" after")


@settings(deadline=None)  # seconds, not its work, on a machine that is shared
@given(value=st.text(min_size=8, max_size=40), before=st.text(max_size=5), after=st.text(max_size=5))
def test_base64_is_hidden_at_any_alignment(value: str, before: str, after: str) -> None:
    data = before.encode() + value.encode() + after.encode()
    assert HIDDEN in Redactor([value]).redact(base64.b64encode(data).decode())


def test_each_line_of_a_key_file_is_hidden() -> None:
    redactor = Redactor(["-----BEGIN KEY-----\nabcdefgh\nijklmnop\n"])
    assert redactor.redact("read: ijklmnop") == f"read: {HIDDEN}"


def test_a_value_within_another_does_not_leave_the_rest_of_it() -> None:
    assert Redactor(["abcd", "abcdefgh"]).redact("x abcdefgh y") == f"x {HIDDEN} y"


@pytest.mark.parametrize("value", ["", "1", "abc"])
def test_values_too_short_to_be_secret_do_not_blank_the_text(value: str) -> None:
    assert Redactor([value]).redact("1 abc") == "1 abc"


def test_a_redactor_may_be_fed_while_it_is_used() -> None:
    redactor = Redactor()
    values = [f"value-{number:04}" for number in range(40)]
    threads = [threading.Thread(target=redactor.add, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
        redactor.redact("value-0000")
    for thread in threads:
        thread.join()
    assert redactor.redact(" ".join(values)) == " ".join([HIDDEN] * len(values))
