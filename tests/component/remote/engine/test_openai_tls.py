"""Asking a server over TLS: the certificate that it was started with is trusted, self-signed or not, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.component.remote.living import Home
from tests.component.remote.stand_in import ENGINE, stand_in
from tests.tls import certificate


@pytest.mark.parametrize("relative", [False, True])
def test_the_key_goes_to_the_server_that_was_started_and_to_nobody_else(
    home: Home, tmp_path: Path, relative: bool
) -> None:
    (home.state / "secrets" / "env").write_text("VLLM_API_KEY=sk-canary\n")
    own, other = certificate(home.path, "model.example.com"), certificate(home.path, "somebody")
    for pair, answered in ((own, True), (other, False)):
        files = [str(path) for path in pair]
        with stand_in(tmp_path, f"{home.deployment}/r1", certificate=files, replies=ENGINE) as engine:
            url = engine.url.replace("http:", "https:")
            server = {"name": "m/0", "driver": home.host, "served_name": "m", "local_url": url}
            given = own[0].name if relative else str(own[0])
            home.record(instances=[{**server, "certificate": given}])
            (reply,) = home.run("chat", server="m/0", messages=[], parameters={})
            assert ("answer" in reply) is answered, reply
            assert ["Authorization: Bearer sk-canary" in request for request in engine.heard] == [True] * answered
    assert "certificate verify failed" in reply["problem"]
