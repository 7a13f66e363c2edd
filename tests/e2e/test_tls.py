"""vLLM with TLS and a key behind vllm-router: certificate and key are sent, and all who ask do so in TLS."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import tiny
from tests.environments import build
from tests.lab import Lab
from tests.lab.product.operator import Operator, Result, eventually
from tests.tls import certificate

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(600)]

NAME, PORT, API_KEY = "over-tls", 4567, "sk-of-the-test"
SETTINGS = ("deploy.ray=never", "deploy.router=always")


@dataclass
class Desk:
    """One host, and an operator with a certificate for its address that vouches for itself."""

    lab: Lab
    operator: Operator
    config: Path
    certificate: Path
    key: Path

    def curl(self, url: str, *words: str) -> tuple[int, str]:
        """Return what a client on the host gets: curl's exit status, and the status of HTTP with the answer."""
        trusted = self.certificate.read_text()
        command = ["curl", "-sS", "-m", "20", "--noproxy", "*", "-w", " %{http_code}", *words, url]
        ended = self.lab.hosts[0].run(command, check=False, stdin=trusted)
        return ended.returncode, ended.stdout


@pytest.fixture(scope="module")
def desk(
    make_lab: Callable[..., Lab], node_env: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Desk:
    lab = make_lab(hosts=1, gpus=1, mounts=[*build.mounts(node_env), tiny_model])
    folder = tmp_path_factory.mktemp("desk")
    operator = Operator(folder, lab.inventory(folder / "hosts.yaml", venv=str(node_env)))
    config = tiny.write(folder / f"{NAME}.yaml", tiny_model, port=PORT, gpus=1)
    (folder / "api-key").write_text(API_KEY + "\n")
    return Desk(lab, operator, config, *certificate(folder, "model", lab.hosts[0].address))


@pytest.fixture(scope="module")
def ran(desk: Desk) -> Result:
    files = (
        f"deploy.tls.certfile={desk.certificate}",
        f"deploy.tls.keyfile={desk.key}",
        "deploy.tls.send=true",
        "deploy.secret_files.VLLM_API_KEY=api-key",
    )
    return desk.operator.start("run", "-c", desk.config, *SETTINGS, *files).end(0, within=500)


def test_it_becomes_ready_and_tells_where_tls_ends(desk: Desk, ran: Result) -> None:
    assert f"endpoint http://{desk.lab.hosts[0].address}:30000/v1" in ran.out
    assert "router-tls: vllm_model/router speaks plain HTTP" in ran.said
    status = desk.operator("status", "--name", NAME, "--json").json
    assert [(instance["name"], instance["state"]) for instance in status["instances"] + status["routers"]] == [
        ("vllm_model/0", "ready"),
        ("vllm_model/router", "ready"),
    ]


def test_call_is_answered_through_the_router_and_its_replica(desk: Desk, ran: Result) -> None:
    output = desk.operator("call", "Say something.", "--name", NAME, "--max-tokens", "4", "--json").out
    assert json.loads(output)["usage"]["completion_tokens"] == 4
    (log,) = (desk.lab.hosts[0].directory / "home").glob(".flagscale-deploy/*/*/logs/vllm_serve_*.log")
    assert '"POST /v1/chat/completions HTTP/1.1" 200' in log.read_text()


def test_the_server_speaks_tls_alone_to_who_trusts_it_and_has_the_key(desk: Desk, ran: Result) -> None:
    models = f"https://{desk.lab.hosts[0].address}:{PORT}/v1/models"
    trust = ("--cacert", "/dev/stdin")
    assert desk.curl(models, *trust, "-H", f"Authorization: Bearer {API_KEY}")[1].endswith(" 200")
    assert desk.curl(models, *trust)[1].endswith(" 401")
    assert desk.curl(models)[0] == 60, "a certificate that curl does not know"
    code, answer = desk.curl(models.replace("https:", "http:"))
    assert code != 0
    assert "tiny" not in answer


def test_the_key_is_for_its_user_alone_and_goes_with_stop(desk: Desk, ran: Result) -> None:
    home = desk.lab.hosts[0].directory / "home"
    (secrets,) = home.glob(".flagscale-deploy/*/*/secrets")
    sent = {path.name: stat.S_IMODE(path.stat().st_mode) for path in secrets.glob("tls.*")}
    assert sent == {"tls.crt": 0o600, "tls.key": 0o600}
    line = desk.key.read_text().splitlines()[3]

    def holding(*places: Path) -> list[Path]:
        files = [path for place in places for path in place.rglob("*") if path.is_file()]
        return [path for path in files if line.encode() in path.read_bytes()]

    assert holding(desk.operator.directory / "outputs") == []
    assert holding(home / ".flagscale-deploy") == [secrets / "tls.key"]
    trust = desk.lab.processes(NAME)
    desk.operator.start("stop", "--name", NAME).end(0, within=120)
    assert holding(home / ".flagscale-deploy") == []
    assert eventually(lambda: not [left for left in desk.lab.leftovers(NAME, trust) if left.kind != "directory"])
    desk.operator("cleanup", "--name", NAME)
    assert desk.lab.leftovers(NAME, trust) == []
