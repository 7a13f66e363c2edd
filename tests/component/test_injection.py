"""Whatever a user writes reaches the program on the host as it is, or is refused: nothing is ever interpreted.

Values go the whole way: from YAML through the planner and the templates into a script that real bash runs, in front of
stand-ins for `ray` and `vllm` that write down what they were given.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.deploy.launch import secret_files
from flagscale_deploy.errors import CheckError, InputError
from flagscale_deploy.inventory.load import load_inventory
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.model import Plan
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.remote.deployment import state
from flagscale_deploy.rendering.render import load_templates
from flagscale_deploy.secrets import Secret, is_secret_name
from flagscale_deploy.support import shell
from flagscale_deploy.support.paths import safe_name
from flagscale_deploy.transport.remote_program import PYTHON_WORDS, command
from tests.fakes import FakeConnection, Output

PWNED = "pwned"
PAYLOADS = (
    f"$(touch {PWNED})", f"`touch {PWNED}`", f"; touch {PWNED} #", f"' ; touch {PWNED} ; '", f"\" ; touch {PWNED} ; \"",
    f"\n touch {PWNED}\n", f"&& touch {PWNED}", f"| touch {PWNED}", f"<(touch {PWNED})", f"$'\\x60touch {PWNED}\\x60'",
    "${PATH}", "$HOME", "~/x", "*", "?[a]", "!!", "{a,b}", "\\", "\\\n", "EOF\n", "PYTHON\n", "#", "-", "--help", "=",
    "{{ 7 * 7 }}", "{% raw %}", "{# x #}", "{{ cycler.__init__.__globals__.os.popen('id') }}", "{%", "}}",
    "!!python/object/apply:os.system ['id']", "*alias", "&anchor", "- a: b", "key: value", "%YAML", "---", "yes",
    "null",
    "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\t", "\u202e", "\u2028", "\x85", "ünï ☃", "a" * 300, "../../etc",
    "/etc/passwd", "..", ".", "",
)  # fmt: skip
HOSTILE = st.lists(
    st.sampled_from(PAYLOADS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=4
).map("".join)
RECORDER = """#!{python} -S
import json, os, sys
name = os.path.basename(sys.argv[0])
with open(os.path.join(os.environ["RECORD"], name + ".json"), "w") as file:
    json.dump({{"argv": sys.argv[1:], "env": dict(os.environ)}}, file)
"""
TEMPLATES = load_templates()
quickly = settings(
    max_examples=50,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # payloads are short as they are: shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def nothing(_host: Host, _module: str, _args: dict[str, Any]) -> list[Output]:
    return []


class Bench:
    """A home with stand-ins in its environment, and a plan made of files with hostile values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv of $(me)" / "bin"
        self.bin.mkdir(parents=True)
        for name in ("ray", "vllm"):
            (self.bin / name).write_text(RECORDER.format(python=sys.executable))
            (self.bin / name).chmod(0o755)
        (self.bin / "activate").write_text(f"PATH={shell.quote(str(self.bin))}:$PATH\n")
        self.state = folder / "state"
        for name in ("scripts", "secrets"):
            (self.state / name).mkdir(parents=True)

    def plan(self, host: dict[str, Any] | None = None, **changed: Any) -> Plan:
        """Plan; raises InputError or CheckError."""
        hosts = self.folder / "hosts.yaml"
        keys = {"name": "gpu01", "address": "10.0.0.1", "gpus": 2, "venv": str(self.bin.parent), **(host or {})}
        hosts.write_text(yaml.safe_dump({"hosts": [keys]}, allow_unicode=False), encoding="utf-8")
        config = self.folder / "qwen.yaml"
        model = {"model-tag": "/models/qwen", "port": 4567, **changed.pop("flags", {})}
        content = {"experiment": {"exp_name": "qwen", **changed}, "model_args": {"qwen": model}}
        config.write_text(yaml.safe_dump(content, allow_unicode=False), encoding="utf-8")
        return plan(Inputs(load_inventory(str(hosts)), load_spec(config, environ={}), {}, "r1", TEMPLATES))

    def run(self, made: Plan, script: str, secrets: dict[str, str] | None = None, **variables: str) -> dict[str, Any]:
        """Run one of its scripts with bash; what the program was given."""
        program = "ray" if script.startswith("ray") else "vllm"
        record = self.folder / f"{program}.json"
        record.unlink(missing_ok=True)
        path = self.state / "scripts" / script
        path.write_text(made.scripts["gpu01"][script], encoding="utf-8")
        files = secret_files({name: Secret(value) for name, value in (secrets or {}).items()}, Secret("t"))
        for name, text in files.items():
            (self.state / name).write_text(text, encoding="utf-8")
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "RECORD": str(self.folder), "LANG": "C.UTF-8"}
        env |= variables
        ended = subprocess.run(["bash", path], cwd=self.folder, env=env, capture_output=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stderr.decode(errors="replace")
        assert not list(self.folder.rglob(PWNED)), "it was executed"
        return dict(json.loads(record.read_text()))


def expanded(text: str, variables: dict[str, str]) -> str:
    """Return a value of `experiment.envs` on a host with these variables: `$NAME` is one of them, `$$` a dollar."""
    head, dollar, rest = text.partition("$")
    if not dollar:
        return head
    if rest.startswith("$"):
        return f"{head}${expanded(rest[1:], variables)}"
    name = next(
        (rest[:end] for end in range(len(rest), 0, -1) if rest[:end].isascii() and rest[:end].isidentifier()), ""
    )
    value = variables.get(name, "") if name else "$"
    return head + value + expanded(rest[len(name) :], variables)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@quickly
@given(value=HOSTILE, secret=HOSTILE, flag=HOSTILE, env=HOSTILE)
def test_values_of_variables_flags_and_secrets_arrive_as_they_are_or_are_refused(
    bench: Bench, value: str, secret: str, flag: str, env: str
) -> None:
    try:
        made = bench.plan(
            {"env": {"OF_HOST": env}}, envs={"MINE": value}, flags={"hostile": flag, "chat-template": value}
        )
    except InputError:
        return
    given = bench.run(made, "vllm_serve_qwen_0.sh", {"MY_TOKEN": secret} if "\0" not in secret else {})
    if "${" not in value + flag:
        assert given["env"]["MINE"] == expanded(value, {"PATH": os.environ["PATH"], "HOME": str(bench.folder)})
        assert f"--hostile={flag}" in given["argv"]
        assert f"--chat-template={value}" in given["argv"]
    assert given["env"]["OF_HOST"] == env
    assert given["env"].get("MY_TOKEN", secret) == secret
    assert given["argv"][:2] == ["serve", "/models/qwen"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/x:$HOST_LIB", "/x:/opt/lib"), ("/x:${HOST_LIB}:$NOT_SET", "/x:/opt/lib:"), ("$HOST_LIB", "/opt/lib"),
        ("pre$HOST_LIB/x$HOST_LIBx", "pre/opt/lib/x"), ("$$HOST_LIB $$", "$HOST_LIB $"),
        ("$GLOB*~ a  b", "* $(id)*~ a  b"), ("~/$HOST_LIB:~", "~//opt/lib:~"),
        ("$(echo $HOST_LIB)", "$(echo /opt/lib)"), ("`id` $HOST_LIB", "`id` /opt/lib"),
        ("$1$?$!$#$@", "$1$?$!$#$@"), ("it's \"$HOST_LIB\"\n", "it's \"/opt/lib\"\n"),
        ("\\$HOST_LIB", "\\/opt/lib"), ("$EARLIER:2", "/opt/lib/1:2"), ("$VLLM_HOST_IP", "10.0.0.1"),
        ("\\${HOST_LIB:-$(id)}", "${HOST_LIB:-$(id)}"),
    ],
)  # fmt: skip
def test_a_variable_of_the_host_is_expanded_in_envs_and_nothing_else_of_a_shell(
    bench: Bench, text: str, value: str
) -> None:
    made = bench.plan(envs={"EARLIER": "$HOST_LIB/1", "MINE": text})
    given = bench.run(made, "vllm_serve_qwen_0.sh", HOST_LIB="/opt/lib", GLOB="* $(id)")
    assert given["env"]["MINE"] == value


@quickly
@given(name=HOSTILE)
def test_names_and_paths_of_models_and_environments(bench: Bench, name: str) -> None:
    try:
        made = bench.plan(flags={"model-tag": name, "served-model-name": name})
    except InputError:
        return
    given = bench.run(made, "vllm_serve_qwen_0.sh")
    if "${" not in name:
        assert given["argv"][1] == name
        assert f"--served-model-name={name}" in given["argv"]


@quickly
@given(
    key=st.sampled_from(["interface", "node_ip", "type", "container", "venv", "address", "user", "python", "name"]),
    value=HOSTILE,
)
def test_what_an_inventory_says_of_a_host(bench: Bench, key: str, value: str) -> None:
    """Refused with its place; or it stands in the script as one word, which `ray start` gets as it is."""
    try:
        made = bench.plan({key: value})
    except (InputError, CheckError):
        return
    if key in ("venv", "name"):  # another environment, another host: there is nothing to run
        for text in (script for scripts in made.scripts.values() for script in scripts.values()):
            checked = subprocess.run(["bash", "-n"], input=text.encode(), capture_output=True, check=False)
            assert checked.returncode == 0, checked.stderr
        return
    given = bench.run(made, "ray_head.sh")
    assert given["argv"][:2] == ["start", "--head"]
    assert f"--node-ip-address={made.ray.head_ip}" in given["argv"]
    if key == "interface" and value:
        assert given["env"]["NCCL_SOCKET_IFNAME"] == value
    if key == "type" and value not in ("gpu", "cpu", ""):
        assert any(value in word for word in given["argv"] if word.startswith("--resources="))


@quickly
@given(python=HOSTILE, container=HOSTILE)
def test_the_login_shell_reads_interpreter_and_container_as_single_words(python: str, container: str) -> None:
    assume("\0" not in python + container)  # which no inventory may hold
    for named in (container, None):
        words = shlex.split(command(FakeConnection(Host("h", "h", python=python, container=named), nothing, [])))
        asked = ["docker", "exec", "-i", container] if named else []
        assert words == [*asked, python, *PYTHON_WORDS]


@quickly
@given(name=HOSTILE)
def test_a_variable_s_name_is_one_or_is_refused(bench: Bench, name: str) -> None:
    try:
        made = bench.plan({"env": {name: "x"}}, envs={name: "x"})
    except InputError:
        return
    secrets = {name: "x"} if is_secret_name(name) else {}  # such a one goes to the host in a file
    assert bench.run(made, "vllm_serve_qwen_0.sh", secrets)["env"][name] == "x"


@quickly
@given(name=HOSTILE, host=HOSTILE)
def test_names_that_become_paths_stay_below_their_folder(tmp_path: Path, name: str, host: str) -> None:
    root = Path(os.path.abspath(tmp_path))
    place = Path(os.path.abspath(root / safe_name(host)))
    assert place.parent == root
    try:
        directory = state.directory(name, host)
    except ValueError:
        return
    assert Path(os.path.abspath(directory)).parent.parent == state.root()


@quickly
@given(name=HOSTILE)
def test_a_deployment_s_name_is_one_file_name_or_is_refused(bench: Bench, name: str) -> None:
    try:
        made = bench.plan(exp_name=name)
    except InputError:
        return
    assert "/" not in made.deployment
    assert made.deployment.strip(".")
    bench.run(made, "vllm_serve_qwen_0.sh")
