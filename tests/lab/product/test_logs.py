"""`logs`: shown, followed, collected; whatever the files are called."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator

Write = Callable[..., Serve]


def ask_for(host: Host, port: int, path: str) -> None:
    """Send a request that the stand-in writes a line about."""
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{host.address}:{port}{path}").close()


def test_lines_bear_their_host_and_are_as_many_as_asked_for(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(models=3)
    operator("run", "-c", served.config)
    shown = operator("logs", "--name", served.name).out.splitlines()
    assert {line.split()[0] for line in shown} == {"node1", "node2"}
    assert sum("Application startup complete." in line for line in shown) == 3
    ask_for(lab.hosts[0], served.port, "/v1/models?the-last-line")
    last = operator("logs", "--name", served.name, "--tail", "1").out.splitlines()
    assert len(last) == 3
    assert sum("the-last-line" in line for line in last) == 1
    as_json = operator("logs", "--name", served.name, "--tail", "1", "--limit", "node1", "--json").out.splitlines()
    assert {json.loads(line)["host"] for line in as_json} == {"node1"}
    operator("stop", "--name", served.name)
    assert sorted(operator("logs", "--name", served.name, "--tail", "1").out.splitlines()) == sorted(last)


def test_new_lines_of_all_hosts_are_followed_until_interrupted(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(models=3)
    operator("run", "-c", served.config)
    following = operator.start("logs", "-f", "--name", served.name, "--tail", "0")
    drivers = {process.host for process in lab.processes(served.name)}
    assert drivers == {"node1", "node2"}
    for turn in ("first", "second"):
        for port in served.ports:
            host = next(host for host in lab.hosts if f"--port={port}" in commands(lab, served, host))
            # Until it is heard: following begins at some time after the command has.
            ask = partial(ask_for, host, port, f"/v1/models?{turn}-{port}")
            following.until(ask, rf"{host.name} +\S+ .*{turn}-{port}")
    following.send(signal.SIGINT)
    following.end(exits=130)
    operator("stop", "--name", served.name)


def commands(lab: Lab, served: Serve, host: Host) -> str:
    return "\n".join(process.command for process in lab.processes(served.name) if process.host == host.name)


def test_all_logs_are_collected_into_a_folder_for_each_host(
    lab: Lab, operator: Operator, serve: Write, tmp_path: Path
) -> None:
    served = serve(models=3)
    operator("run", "-c", served.config)
    output = operator("logs", "--name", served.name, "-o", tmp_path / "logs").out
    collected = {path.relative_to(tmp_path / "logs").as_posix() for path in (tmp_path / "logs").rglob("*.*")}
    assert collected >= {
        "node1/logs/vllm_serve_model0_0.log",
        "node1/scripts/vllm_serve_model0_0.sh",
        "node2/logs/vllm_serve_model2_0.log",
    }
    clocks = json.loads((tmp_path / "logs" / "clocks.json").read_text())
    assert {"node1", "node2"} <= set(clocks)
    assert all(abs(clock["skew"]) < 5 and abs(clock["utc_offset"]) <= 14 * 3600 for clock in clocks.values())
    assert not [name for name in collected if "secret" in name or "record" in name]
    for name in ("node1", "node2"):
        files = [path for path in (tmp_path / "logs" / name).rglob("*") if path.is_file()]
        match = re.search(rf"^{name} +(\d+) +([\d,]+) ", output, re.M)
        assert match, output
        assert int(match[1]) == len(files)
        assert int(match[2].replace(",", "")) == sum(path.stat().st_size for path in files)
    operator("stop", "--name", served.name)


HOSTILE = ["-rf", "a\nb", "$(touch pwned)", "..", "ü'\"☃.log", "x" * 200 + ".log", "\x1b[31mred.log"]


def test_files_with_hostile_names_neither_break_out_nor_play_with_the_terminal(
    lab: Lab, operator: Operator, serve: Write, tmp_path: Path
) -> None:
    served = serve()
    operator("run", "-c", served.config)
    directory = lab.hosts[0].directory / f"home/.flagscale-deploy/{served.name}/node1/logs"
    for name in HOSTILE:
        if name != "..":
            (directory / name).write_text("line\x1b[2J\x07 of the file\n")
    (directory / "link.log").symlink_to("/etc/passwd")
    lab.hosts[0].run(["mkfifo", f"/root/.flagscale-deploy/{served.name}/node1/logs/pipe.log"])
    shown = operator("logs", "--name", served.name, "--limit", "node1").out
    assert all(line.startswith("node1 ") for line in shown.splitlines())
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "root:x:" not in shown
    operator("logs", "--name", served.name, "-o", tmp_path / "logs")
    names = {path.name for path in (tmp_path / "logs/node1/logs").iterdir()}
    assert names == {name for name in HOSTILE if name != ".."} | {"vllm_serve_model0_0.log"}
    assert not list(tmp_path.rglob("pwned"))
    operator("cleanup", "--name", served.name)
