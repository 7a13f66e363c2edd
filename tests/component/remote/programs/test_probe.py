"""The whole probe, run as a host runs it, read by the operator's types."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from flagscale_deploy.facts.model import Facts
from tests.component.remote.living import SLEEP, Home, Household, birth

SEEN_BY_THE_OPERATOR = {"noise", "asked_at"}


def test_the_answer_has_exactly_the_fields_of_facts(home: Home) -> None:
    answer: Any
    (answer,) = home.run("probe", venv=None, before_start=None, env={})
    assert set(answer) == {field.name for field in fields(Facts)} - SEEN_BY_THE_OPERATOR
    facts = Facts.parse(answer)
    assert facts.home == str(home.path)
    assert facts.uid == os.getuid()
    assert facts.hostname == socket.gethostname()
    assert facts.boot_id == birth(os.getpid())["boot_id"]
    assert abs(facts.clock - time.time()) < 60
    assert facts.environment_error is None
    assert facts.python is not None


def test_records_of_this_host_come_back_and_a_broken_one_says_so(home: Home) -> None:
    record = home.record(digest="sha256:1")
    for deployment, host in (("broken/one", home.host), ("other", "gpu02")):
        path = home.path / ".flagscale-deploy" / deployment.replace("/", "%2F") / host
        path.mkdir(parents=True)
        (path / "record.json").write_text("{")
    (answer,) = home.run("probe")
    broken, entry = sorted(answer["deployments"], key=lambda item: "broken" not in item)
    assert entry == json.loads(json.dumps(record))
    assert broken["deployment"] == "broken/one"
    assert "record.json" in broken["broken"]


def test_a_port_held_by_a_deployment_bears_its_marker(people: Household, home: Home, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    tell = f"open({str(port_file)!r}, 'w').write(str(s.getsockname()[1]))"
    listen = f"import socket\ns = socket.create_server(('127.0.0.1', 0))\n{tell}\n{SLEEP}"
    (pid,) = people.python(listen, f"{home.deployment}/r1")
    (answer,) = home.run("probe")
    (entry,) = [port for port in answer["ports"] if port["port"] == int(port_file.read_text())]
    assert (entry["pid"], entry["run"]) == (pid, f"{home.deployment}/r1")
