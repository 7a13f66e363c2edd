from __future__ import annotations

import base64
import copy
import hashlib
import html
import json
import pickle
import shlex
import threading
import time
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
    "YAML in quotes": "key: '" + VALUE.replace("'", "''") + "'",
    "XML": "<a b='" + html.escape(VALUE) + "'/>",
    "XML, quotes as they are": html.escape(VALUE, quote=False),
    "bytes in Python": repr({"key": VALUE.encode()}),
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


@pytest.mark.parametrize(
    "name", ["PGPASSWORD", "apiKey", "authToken", "MYSQL_PWD", "AWS_CREDENTIALS", "SESSION_COOKIE", "Authorization",
             "client-secret", "OPENAI_API_KEYS", "HF_TOKEN_2", "db.password", "NPM_AUTH", "GITHUBTOKEN"],
)  # fmt: skip
def test_names_of_secrets_are_known_in_other_spellings(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["PWD", "OLDPWD", "max_tokens", "author", "authorized_keys_file", "tokens", "ssh-auth-sock", "keyed"]
)
def test_names_that_only_begin_so_are_not_secret(name: str) -> None:
    assert not is_secret_name(name)


LOOKS = {
    "Hugging Face": "hf_AbCdEfGhIjKlMnOpQrStUv",
    "OpenAI": "sk-proj-0123456789abcdefghij",
    "GitHub": "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "GitHub, fine-grained": "github_pat_0123456789abcdefghij_ABCDEF",
    "GitLab": "glpat-0123456789abcdefghij",
    "Slack": "xoxb-0123456789-abcdef",
    "NVIDIA": "nvapi-0123456789abcdefghij",
    "AWS": "AKIA0123456789ABCDEF",
    "Google": "AIza0123456789abcdefghijABCDEFGHIJ01234",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlc2lnbg",
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----\nMIIabc\n-----END OPENSSH PRIVATE KEY-----",
}


@pytest.mark.parametrize("value", LOOKS.values(), ids=LOOKS.keys())
@pytest.mark.parametrize("around", ["{}", "'{}'", "key={} x", '{{"a": "{}"}}', "http://h/?x={}"])
def test_what_looks_like_a_key_is_hidden_without_being_known(value: str, around: str) -> None:
    redacted = Redactor().redact(around.format(value))
    assert redacted == around.format("\n".join(HIDDEN for _ in value.split("\n")))


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://me:s3cr/et@proxy:8080/x", "http://[REDACTED]@proxy:8080/x"),
        ("GET /v1?model=q&api_key=abcdefgh HTTP/1.1", "GET /v1?model=q&api_key=[REDACTED] HTTP/1.1"),
        ("https://h/x?token=abcdefgh", "https://h/x?token=[REDACTED]"),
        ("https://hooks.slack.com/services/T01/B02/AbCdEf0123", "https://hooks.slack.com/services/[REDACTED]"),
        (
            "https://discord.com/api/webhooks/123456789/AbCdEfGh-0123456789_x",
            "https://discord.com/api/webhooks/123456789/[REDACTED]",
        ),
        (
            "https://open.feishu.cn/open-apis/bot/v2/hook/0a1b2c3d-4e5f-6789",
            "https://open.feishu.cn/open-apis/bot/v2/hook/[REDACTED]",
        ),
        (
            "https://me.webhook.office.com/webhookb2/0a1b2c3d@4e5f/IncomingWebhook/67890abc",
            "https://me.webhook.office.com/webhookb2/[REDACTED]",
        ),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [REDACTED]"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: Basic [REDACTED]"),
    ],
)
def test_passwords_in_addresses_and_headers_are_hidden(text: str, hidden: str) -> None:
    assert Redactor().redact(text) == hidden


@pytest.mark.parametrize(
    "text",
    [
        'curl -H "Authorization: Bearer $VLLM_API_KEY" http://gpu01:8000/v1/chat/completions',
        "hf_hub_download of Qwen/Qwen2.5-0.5B-Instruct at 10.0.0.1:8000/v1@x",
        "http://10.0.0.1:8000/metrics@x ?model=q&n=1",
        "task-runner-for-something-long disk-0 sk-short sha256:0123456789abcdef0123456789abcdef",
        "run 20260727-101112-a1b2c3 of root@ops1, digest 9f8e7d6c5b4a39281706f5e4d3c2b1a0",
        "max_tokens=16 top_k=20 keys=3 Bearer token",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert Redactor().redact(text) == text


def test_a_very_short_secret_blots_nothing_out() -> None:
    assert Redactor([Secret("1"), Secret("abc")]).redact("1 abc of 11") == "1 abc of 11"


def test_many_secrets_are_hidden_as_one_is_and_soon() -> None:
    """An inventory may have a password for each of its hosts."""
    values = [f"{hash_of(number)}" for number in range(2000)] + ["abcdefgh", "abcdefghij", "abcdefg"]
    began = time.process_time()
    redactor = Redactor()
    redactor.add(*values, quoted_only=True)
    text = "\n".join(f"x {value}! {value[:-1]}" for value in values[:2000]) + " abcdefghijk abcdefghi abcdefg!"
    redacted = redactor.redact(text)
    assert time.process_time() - began < 10
    assert not [value for value in values if value in redacted]
    assert redacted.startswith(f"x {HIDDEN}! {values[0][:-1]}\n")
    assert redacted.endswith(f" {HIDDEN}k {HIDDEN}i {HIDDEN}!")


def hash_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:24]


def test_of_a_value_that_is_too_long_the_ends_are_hidden() -> None:
    value = "".join(f"{hash_of(number)}" for number in range(2000))
    redacted = Redactor([value]).redact(value)
    assert value[:1024] not in redacted
    assert redacted.startswith(HIDDEN)
    assert redacted.endswith(HIDDEN)


@pytest.fixture(scope="module")
def crowded() -> Redactor:
    """Provide a redactor that knows many other values beside the one of the forms."""
    redactor = Redactor([VALUE])
    redactor.add(*(f"other'{number}" for number in range(1500)))
    return redactor


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_every_form_is_hidden_beside_many_other_values(crowded: Redactor, text: str) -> None:
    assert crowded.redact(f"before {text} after") == Redactor([VALUE]).redact(f"before {text} after")


def test_each_of_very_many_values_is_hidden_in_the_usual_forms() -> None:
    values = [f"pass'{hash_of(number)}" for number in range(3000)]
    redactor = Redactor(values)
    for value in values[::100]:
        for text in (
            value,
            shlex.quote(value),
            quote(value),
            json.dumps(value),
            base64.b64encode(value.encode()).decode(),
        ):
            assert HIDDEN in redactor.redact(text)


def test_learning_one_value_after_the_other_takes_no_longer_than_all_at_once() -> None:
    began = time.process_time()
    redactor = Redactor()
    for number in range(20_000):
        redactor.add(f"password-{number}", quoted_only=True)
    assert redactor.redact("a password-19999.") == f"a {HIDDEN}."
    assert time.process_time() - began < 10
