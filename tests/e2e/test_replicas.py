"""Two replicas on two hosts behind vllm-router and a gate: both work, and one of them is enough.

Gate and replicas speak TLS and want a key: certificate and keys are sent, and all who ask do so in TLS. Clients have
keys of the gate, which the replicas do not take.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.deploy.benchmark import METRICS
from tests.e2e import tiny
from tests.e2e.sight import Process, look_at
from tests.e2e.streams import Streams
from tests.environments import build
from tests.lab import Host, Lab
from tests.lab.product.operator import Operator, Result, eventually
from tests.tls import certificate

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(900)]

NAME = "twins"
PORT, API_KEY, ALICE = 4567, "sk-of-the-test", "sk-of-alice-alone"
GATE, ROUTER = 8080, 30000
READY_SECONDS = 600.0
SETTINGS = ("deploy.models.vllm_model.num_replicas=2", "deploy.router.policy=round_robin", "deploy.ray=auto",
            "deploy.restart.hang=20", "--skip-check", "engine-arguments")  # fmt: skip
"""vLLM's parser on each host, which takes six core-seconds, is asked in other modules."""
NO_TOKENIZER = "model_args.vllm_model.tokenizer=/no/such/tokenizer"
"""vLLM looks for that when it loads the model."""
Change = Callable[..., Result]
STREAM = '{"model": "tiny", "prompt": "Go on", "max_tokens": 480, "ignore_eos": true, "stream": true}'


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], node_env: Path, tiny_model: Path) -> Lab:
    return make_lab(hosts=2, gpus=1, mounts=[*build.mounts(node_env), tiny_model])


@pytest.fixture(scope="module")
def pair(lab: Lab, operator: Operator) -> tuple[Path, Path]:
    """Return a certificate for both hosts that vouches for itself, and its key."""
    return certificate(operator.directory, "model", *(host.address for host in lab.hosts))


@pytest.fixture(scope="module")
def ran(operator: Operator, tiny_model: Path, pair: tuple[Path, Path]) -> Result:
    tiny.write(operator.directory / f"{NAME}.yaml", tiny_model, port=PORT, gpus=1, forks=True)
    (operator.directory / "api-key").write_text(API_KEY + "\n")
    (operator.directory / "alice").write_text(ALICE + "\n")
    return operator.start("run", *wanted(operator, pair)).end(0, within=READY_SECONDS)


def wanted(operator: Operator, pair: tuple[Path, Path]) -> list[str | Path]:
    """Return the words that say what is deployed."""
    files = (
        f"deploy.tls.certfile={pair[0]}",
        f"deploy.tls.keyfile={pair[1]}",
        "deploy.tls.send=true",
        "deploy.secret_files.VLLM_API_KEY=api-key",
        "deploy.gate.key_files.alice=alice",
    )
    return ["-c", operator.directory / f"{NAME}.yaml", *SETTINGS, *files]


@pytest.fixture
def changed(operator: Operator, pair: tuple[Path, Path]) -> Change:
    """Return what types `update` with more settings and waits for its end."""

    def change(*settings: str, exits: int) -> Result:
        words = (*wanted(operator, pair), *settings, "--watch-for", "2s")
        return operator.start("update", *words).end(exits, within=READY_SECONDS)

    return change


@pytest.fixture(scope="module")
def after_one_died(lab: Lab, operator: Operator, ran: Result) -> Any:
    """Return the status after the engine on the second host was killed, with its supervisor."""
    engines = [process for process in lab.processes(NAME) if process.host == "node2"]
    lab.hosts[1].run(["kill", "-9", *(str(process.pid) for process in engines)])
    assert eventually(lambda: all(process.host != "node2" for process in lab.processes(NAME)))
    seen: list[Any] = []

    def is_dead() -> bool:
        seen.append(operator("status", "--name", NAME, "--json", exits=1).json)
        return [instance["state"] for instance in seen[-1]["instances"]][-1:] == ["dead"]

    assert eventually(is_dead, every=2.0), seen[-1]  # what was killed is there until it has been reaped
    return seen[-1]


def served(lab: Lab, operator: Operator) -> dict[str, int]:
    """How many chat completions each host's engine has answered, by its log."""
    operator("logs", "--name", NAME, "-o", operator.directory / "collected")
    logs = {host.name: operator.directory / "collected" / host.name / "logs" for host in lab.hosts}
    return {
        name: sum(path.read_text().count("/v1/chat/completions HTTP") for path in folder.glob("vllm_serve_*.log"))
        for name, folder in logs.items()
    }


def ask(operator: Operator) -> str:
    answer = json.loads(operator("call", "Say something.", "--name", NAME, "--max-tokens", "4", "--json").out)
    assert answer["usage"]["completion_tokens"] == 4
    return str(answer["model"])


def curl(host: Host, trusted: Path, url: str, *words: str) -> tuple[int, str]:
    """Return what a client on a host gets: curl's exit status, and the answer with the status of HTTP."""
    command = ["curl", "-sS", "-m", "20", "--noproxy", "*", "--path-as-is", "-w", " %{http_code}", *words, url]
    ended = host.run(command, check=False, stdin=trusted.read_text())
    return ended.returncode, ended.stdout


def bearer(key: str) -> tuple[str, str]:
    return "-H", f"Authorization: Bearer {key}"


def internal_key(lab: Lab) -> str:
    """Return the key by which the gate asks the replicas."""
    (path,) = states(lab)[0].glob(f"{NAME}/*/secrets/internal-key")
    return path.read_text()


def holding(key: Path, *places: Path) -> list[Path]:
    """Return the files that hold a line of a key."""
    line = key.read_text().splitlines()[3].encode()
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return [path for path in files if line in path.read_bytes()]


def states(lab: Lab) -> list[Path]:
    """Return where the product keeps its files on each host."""
    return [host.directory / "home/.flagscale-deploy" for host in lab.hosts]


def test_the_endpoint_is_the_gates_and_tls_ends_nowhere_before_it(lab: Lab, ran: Result) -> None:
    assert f"endpoint https://{lab.hosts[0].address}:{GATE}/v1" in ran.out
    assert f":{PORT}" not in ran.out
    assert f":{ROUTER}" not in ran.out
    assert "router-tls" not in ran.said


def test_status_has_both_replicas_the_router_and_the_gate(operator: Operator, ran: Result) -> None:
    status = operator("status", "--name", NAME, "--json").json
    assert [
        (instance["name"], instance["state"], instance["driver"])
        for instance in status["instances"] + status["routers"]
    ] == [
        ("vllm_model/0", "ready", "node1"),
        ("vllm_model/1", "ready", "node2"),
        ("vllm_model/router", "ready", "node1"),
        ("gate", "ready", "node1"),
    ]


def test_completions_arrive_at_both(lab: Lab, operator: Operator, ran: Result) -> None:
    before = served(lab, operator)
    for _ in range(4):
        assert ask(operator) == "tiny"
    now = served(lab, operator)
    assert {name: now[name] - before[name] for name in now} == {"node1": 2, "node2": 2}


def test_bench_measures_through_the_gate_in_tls_and_leaves_nothing(
    lab: Lab, operator: Operator, ran: Result, pair: tuple[Path, Path]
) -> None:
    """Two points of real `vllm bench serve`, from the other host than that of the gate."""
    words = [*wanted(operator, pair)[:2], "--from", "node2", "--rate", "4,inf", "--num-prompts", "2",
             "--input-len", "8", "--output-len", "4", "--goodput", "ttft:60000", "--json"]  # fmt: skip
    report = operator.start("bench", *words).end(0, within=300).json
    assert [(point["rate"], point["completed"], point["failed"]) for point in report["points"]] == [
        ("4", 2, 0),
        ("inf", 2, 0),
    ]
    assert report["endpoint"] == f"https://{lab.hosts[0].address}:{GATE}/v1"
    for point in report["points"]:
        assert set(point["metrics"]) == set(METRICS)
        assert all(figure > 0 for figure in point["metrics"].values())
    left = [host.run("ls /tmp").stdout for host in lab.hosts]
    assert not any("fsd-bench" in names for names in left)


def test_gate_and_servers_speak_tls_alone_to_who_trusts_them_and_has_their_key(
    lab: Lab, ran: Result, pair: tuple[Path, Path]
) -> None:
    client, other = lab.hosts
    internal = internal_key(lab)
    doors: dict[tuple[str, int], tuple[str, ...]] = {(client.address, GATE): (API_KEY, ALICE, internal)}
    doors = {**doors, **{(host.address, PORT): (internal,) for host in lab.hosts}}
    for (address, port), keys in doors.items():
        models = f"https://{address}:{port}/v1/models"
        trust = ("--cacert", "/dev/stdin")
        for key in (API_KEY, ALICE, internal):
            status = curl(other, pair[0], models, *trust, *bearer(key))[1].rpartition(" ")[2]
            assert status == ("200" if key in keys else "401"), (port, key)
        assert curl(client, pair[0], models, *trust)[1].endswith(" 401")
        assert curl(client, pair[0], models)[0] == 60, "a certificate that curl does not know"
        code, answer = curl(client, pair[0], models.replace("https:", "http:"))
        assert (code != 0, "tiny" in answer) == (True, False)


@pytest.mark.parametrize(
    "path", ["/add_worker?url=http://x", "/v1/../add_worker", "/%61dd_worker", "/metrics", "/sleep"]
)
def test_nothing_of_the_router_or_the_engines_but_their_api_is_reached(
    lab: Lab, ran: Result, pair: tuple[Path, Path], path: str
) -> None:
    client, other = lab.hosts
    url = f"https://{client.address}:{GATE}{path}"
    asked = curl(other, pair[0], url, "--cacert", "/dev/stdin", "-X", "POST", *bearer(ALICE))[1]
    assert asked.rpartition(" ")[2] in ("400", "404"), asked
    assert curl(other, pair[0], f"http://{client.address}:{ROUTER}{path}", "-X", "POST")[0] == 7, "no connection"
    assert curl(client, pair[0], f"http://127.0.0.1:{ROUTER}/health")[1].endswith(" 200")


def test_the_key_is_for_its_user_alone(lab: Lab, operator: Operator, ran: Result, pair: tuple[Path, Path]) -> None:
    for state in states(lab):
        (secrets,) = state.glob("*/*/secrets")
        sent = {path.name: stat.S_IMODE(path.stat().st_mode) for path in secrets.glob("tls.*")}
        assert sent == {"tls.crt": 0o600, "tls.key": 0o600}
        assert holding(pair[1], state) == [secrets / "tls.key"]
    assert holding(pair[1], operator.directory / "outputs") == []
    key = internal_key(lab)
    for state in states(lab):
        assert {
            path.parent.name for path in state.rglob("*") if path.is_file() and key in path.read_text("latin-1")
        } == {"secrets"}
    written = [path for path in (operator.directory / "outputs").rglob("*") if path.is_file()]
    assert [path for path in written if key in path.read_text("latin-1")] == []
    assert not any(key in process.command for host in lab.hosts for process in look_at(host).processes)


def served_with(lab: Lab) -> list[set[str]]:
    """Return `--max-num-seqs` of the processes on each host: those of an engine, and its supervisor."""
    pattern = re.compile(r"vllm serve .*--max-num-seqs[= ](\d+)")
    flags = [[pattern.search(process.command) for process in look_at(host).processes] for host in lab.hosts]
    return [{flag.group(1) for flag in of_host if flag} for of_host in flags]


def test_a_flag_is_changed_while_clients_stream_and_none_fails(
    lab: Lab, operator: Operator, ran: Result, changed: Change, pair: tuple[Path, Path]
) -> None:
    with Streams(f"https://{lab.hosts[0].address}:{GATE}/v1", ALICE, pair[0]) as streams:
        result = changed("model_args.vllm_model.max-num-seqs=6", exits=0)
        streams.prove()
    assert streams.failed == [], streams.figures()
    assert "--max-num-seqs 4 → 6" in result.said
    assert served_with(lab) == [{"6"}, {"6"}]


if os.environ.get("FSD_FAULTS") == "all":

    def test_a_flag_that_vllm_refuses_is_put_back_while_clients_stream_and_none_fails(
        lab: Lab, operator: Operator, ran: Result, changed: Change, pair: tuple[Path, Path]
    ) -> None:
        before = served_with(lab)
        with Streams(f"https://{lab.hosts[0].address}:{GATE}/v1", ALICE, pair[0]) as streams:
            result = changed("model_args.vllm_model.max-num-seqs=6", NO_TOKENIZER, exits=5)
            streams.prove()
        assert streams.failed == [], streams.figures()
        assert "what was changed is put back" in result.err
        assert served_with(lab) == before
        assert operator("status", "--name", NAME, "--json").json["state"] == "ready"


def core_of(host: Host) -> Process:
    (core,) = [process for process in look_at(host).processes if "VLLM::EngineCore" in process.command]
    return core


@contextlib.contextmanager
def streaming(host: Host, path: Path, trusted: Path, key: str) -> Iterator[None]:
    """Keep a stream of an engine open that has brought a token."""
    request = ["curl", "-sN", f"https://{host.address}:{PORT}/v1/completions", "--noproxy", "*", "-o", str(path),
               "--cacert", str(trusted), *bearer(key),
               "-H", "Content-Type: application/json", "-d", STREAM]  # fmt: skip
    with subprocess.Popen(request) as asked:
        try:
            assert eventually(lambda: path.exists() and b"data: " in path.read_bytes(), within=60)
            yield
        finally:
            asked.kill()


def test_engines_whose_cores_were_killed_or_hang_come_back(
    lab: Lab, operator: Operator, ran: Result, pair: tuple[Path, Path]
) -> None:
    """One core is killed. The other one is stopped while it makes tokens: `/health` would be 200 for ever."""
    killed, hanging = lab.hosts
    before = [core_of(host).pid for host in lab.hosts]
    state = {host: host.directory / f"home/.flagscale-deploy/{NAME}/{host.name}" for host in lab.hosts}
    logs = [state[host] / f"logs/vllm_serve_vllm_model_{number}.log" for number, host in enumerate(lab.hosts)]
    with streaming(hanging, operator.directory / "stream.txt", pair[0], internal_key(lab)):
        hanging.run(["kill", "-STOP", str(before[1])])
        killed.run(["kill", "-9", str(before[0])])
        assert eventually(lambda: all("is healthy again" in log.read_text() for log in logs), within=240, every=0.5)

    def back() -> bool:
        status = operator("status", "--name", NAME, "--json", exits=None).json
        return [(instance["state"], instance["restarts"]) for instance in status["instances"]] == [
            ("ready", 1),
            ("ready", 1),
        ]

    assert eventually(back, within=60, every=2.0)
    assert not set(before) & {core_of(host).pid for host in lab.hosts}
    (folder,) = (state[hanging] / "evidence").iterdir()
    assert not (state[killed] / "evidence").exists()
    assert "no token" in (folder / "problem.txt").read_text()
    assert "State:\tT (stopped)" in (folder / f"process-{before[1]}.txt").read_text()


def test_requests_are_answered_when_one_has_died(operator: Operator, after_one_died: Any) -> None:
    assert after_one_died["state"] == "unwell"
    assert [instance["state"] for instance in after_one_died["instances"]] == ["ready", "dead"]
    for _ in range(4):
        assert ask(operator) == "tiny"


def test_stop_takes_all_of_it_away_and_the_key(
    lab: Lab, operator: Operator, after_one_died: Any, pair: tuple[Path, Path]
) -> None:
    def routers() -> list[str]:
        """Find the router, which changes its process title and so loses its marker: the lab can't tell whose it is."""
        return [process.command for process in look_at(lab.hosts[0]).processes if "vllm::router" in process.command]

    processes = lab.processes(NAME)
    assert routers()
    operator.start("stop", "--name", NAME).end(0, within=120)
    assert not routers()
    assert holding(pair[1], *states(lab)) == []
    assert eventually(lambda: not [left for left in lab.leftovers(NAME, processes) if left.kind != "directory"])
    operator("cleanup", "--name", NAME)
    assert lab.leftovers(NAME, processes) == []
