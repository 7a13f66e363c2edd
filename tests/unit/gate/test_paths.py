"""What a request target may look like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagscale_deploy.gate.config import Config
from flagscale_deploy.gate.paths import ADMIN, USUAL, PathError, Target, judge, path_class

ALLOWED = Config("d", "r", "h", 0, {}).paths
OPEN = ("/*",)


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        ("/v1/chat/completions", Target("/v1/chat/completions")),
        ("/v1/completions?a=%2e%2e/x&b", Target("/v1/completions", "?a=%2e%2e/x&b")),
        ("/v1/responses/resp_1-a.b~c:d@e/cancel", Target("/v1/responses/resp_1-a.b~c:d@e/cancel")),
        ("/version?", Target("/version", "?")),
        ("/v1/models", Target("/v1/models")),
        ("/v1/models/org/name", Target("/v1/models/org/name", model="org/name")),
        ("/v1/models/org%2Fname%20b", Target("/v1/models/", model="org/name b")),
        ("/v1/models/metrics", Target("/v1/models/metrics", model="metrics")),
    ],
)
def test_what_passes_is_forwarded_as_it_was_judged(raw: str, target: Target) -> None:
    assert judge(raw, ALLOWED) == target


@pytest.mark.parametrize(
    "raw",
    [
        "", "*", "v1/models", "//v1/chat", "/v1//chat", "/v1/../add_worker", "//v1/../add_worker", "/%61dd_worker",
        "/v1/%2e%2e/add_worker", "/v1/..%2fadd_worker", "/v1\\..\\add_worker", "/v1/%5cchat", "/v1/chat%00",
        "/v1/chat\x00",
        "/v1/chat;a=b", "/v1/..;/add_worker", "/v1/.", "/v1/./chat", "/v1/.../x", "/v1/chat/", "/", "/v1/%63hat",
        "/v1/c%",
        "/v1/%252e%252e/x", "/v1/ü", "/v1/\udcff", "http://a/v1/models", "https://a", "//a/v1/models", "a:80",
        "/v1/chat#x",
        "/v1/chat?a b", "/v1/chat?a#b", "/v1/chat?\x00", "/v1/chat?ü", "/v1/a b", "/v1/a\tb", "/v1/" + "a" * 600,
        "?", "#",
        "/v1/models/%ff", "/v1/chat\n", "/v1/chat?a\n", "/v1/models/a?%20 x", "/V1//",
    ],
)  # fmt: skip
def test_what_is_not_in_normal_form_is_refused(raw: str) -> None:
    with pytest.raises(PathError) as caught:
        judge(raw, OPEN if "models" not in raw else ALLOWED)
    assert not caught.value.normal


@pytest.mark.parametrize("name", sorted(ADMIN))
@pytest.mark.parametrize("form", ["/{}", "/v1/{}", "/{}/v1", "/v1/{}/x", "/v1/x/{}?a"])
def test_admin_endpoints_never_pass_whatever_is_allowed(name: str, form: str) -> None:
    for spelt in (name, name.upper(), name.title()):
        with pytest.raises(PathError):
            judge(form.format(spelt), (*OPEN, f"/{name}", f"/v1/{name}"))


@pytest.mark.parametrize("path", ["/docs", "/v2/embed", "/V1/models", "/v1", "/version/x", "/tokenize", "/healthz"])
def test_what_is_not_allowed_is_refused(path: str) -> None:
    with pytest.raises(PathError) as caught:
        judge(path, ALLOWED)
    assert caught.value.normal
    assert judge(path, OPEN).path == path


@given(st.text(st.sampled_from("/v1%.2eEfF5c;\\?#ab\0 \t:@")))
def test_no_decoding_changes_a_path_that_passes(text: str) -> None:
    try:
        target = judge("/" + text, OPEN)
    except PathError:
        return
    assert target.model is not None or not set(target.path) & set("%\\;?#\0 \t")
    assert target.model is not None or all(segment.strip(".") for segment in target.path.split("/")[1:])


def test_a_class_of_paths_has_no_text_of_a_client() -> None:
    assert [path_class(path, USUAL) for path in ("/v1/chat/completions", "/v1/made-up", "/made-up")] == [
        "/v1/chat/completions", "/v1/*", "other",
    ]  # fmt: skip
