"""KV cache that goes from prefill to decode, by the counters of real servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.engine import transfers
from flagscale_deploy.remote.programs import watch
from tests.component.remote.living import Home
from tests.component.remote.stand_in import ENGINE, StandIn, reply, stand_in

WITHOUT = {**ENGINE, "/v1/completions": reply({"error": "Prefill request failed"}, "500 Internal Server Error")}


def counting(count: float) -> dict[str, str]:
    """Return the replies of an engine that has fetched so many bytes."""
    return {"/metrics": reply(f'vllm:nixl_bytes_transferred_sum{{engine="0"}} {count}\n')}


@pytest.fixture
def serve(home: Home, tmp_path: Path) -> Iterator[Callable[..., StandIn]]:
    """Provide what starts a server of the deployment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfers, "COUNTED_SECONDS", 0.3)
        running = []

        def start(**behaviour: Any) -> StandIn:
            running.append(stand_in(tmp_path, f"{home.deployment}/r1", **behaviour))
            return running[-1].__enter__()

        yield start
        for server in running:
            server.__exit__(None, None, None)


def asked(home: Home, *engines: str, router: str = "") -> Any:
    return {"deployment": home.deployment, "host": home.host, "url": router, "model": "m",
            "transfers": {"urls": list(engines), "trust": ""}}  # fmt: skip


def test_a_counter_that_grows_is_a_transfer(home: Home, serve: Callable[..., StandIn]) -> None:
    prefill, decode = serve(replies=counting(0)), serve(replies=counting(7))
    seen = transfers.Transfers(asked(home, prefill.url, decode.url))
    seen.remember()
    assert "NIXL counts no bytes" in seen.missing()
    decode.kill()
    assert f"no metrics of {decode.url}" in seen.missing()
    serve(replies=counting(8), port=decode.port)
    assert seen.missing() == ""


def test_time_runs_once_all_engines_answer(
    home: Home, serve: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "SECONDS", 0.0)
    prefill, decode = serve(replies=counting(0)), serve(replies={})
    seen = transfers.Transfers(asked(home, prefill.url, decode.url))
    seen.remember()
    assert not seen.overdue
    decode.kill()
    serve(replies=counting(0), port=decode.port)
    seen.remember()
    assert seen.overdue


@pytest.mark.parametrize(
    ("replies", "why"), [(ENGINE, "NIXL counts no bytes"), (WITHOUT, "a one-token completion fails: HTTP 500")]
)
def test_a_router_without_a_transfer_is_never_ready(
    home: Home, serve: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch, replies: dict[str, str], why: str
) -> None:
    monkeypatch.setattr(transfers, "SECONDS", 1.0)
    engine, router = serve(replies=counting(0)), serve(replies=replies)
    asking = watch.EnginePoll(asked(home, engine.url, router=router.url))
    deadline = time.monotonic() + 60
    while not (asking.overdue and why in asking.why):
        assert time.monotonic() < deadline
        assert asking.answered is None
        time.sleep(0.05)
    asking.answered = "enough"  # ends the thread
