"""A secret that stands where users put it by mistake is in nothing that we print: a canary in every such place."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flagscale_deploy.cli import cli

HOSTS = "hosts:\n- {name: gpu01, address: 10.0.0.1, gpus: 8}\n"
SERVE = "model_args:\n  m: {model: /models/q, gpus: 1}\n"
WHOLE = os.environ.get("FSD_FAULTS") == "all"
CANARIES = ("correct-horse-battery", "Tr0ub4dor&3xyz", "9f8e7d6c5b4a39281706", "C4nary/plus+Slash00==")
"""Without any look of a key; `FSD_FAULTS=all` tries all four in each place, else two of them."""
PATHS = ("q7pass.key", "/q7pass/secret", "~/q7pass")
MISTAKEN = ("!q7pass&word", "$Kq7secretword", "%Zq7pass", "[q7pa(ss", "*Aq7pass!", "~Tq7passw0rd", "/q7Slash+abc=",
            "<q7pass>", "&q7pass", "|q7passw", ">q7passw", "{q7pass", "(q7pass", "./q7+pass", *PATHS)  # fmt: skip
"""With the look of a reference, a tag or a path."""
LOOKING = (
    "hf_CanaryCanaryCanary0123",
    "sk-canary-0123456789abcdefgh",
    "ghp_Canary0123456789abcdef",
    "github_pat_Canary0123456789_abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlc2lnbg",
    "AKIACANARY0123456789",
)
SERVE_YAML = {
    "secrets: name and value": SERVE + "deploy: {secrets: ['HF_TOKEN=CANARY']}\n",
    "secrets: name: value": SERVE + "deploy: {secrets: ['HF_TOKEN: CANARY']}\n",
    "secrets: a mapping": SERVE + "deploy: {secrets: {HF_TOKEN: 'CANARY'}}\n",
    "secrets: list of mappings": SERVE + "deploy: {secrets: [{HF_TOKEN: 'CANARY'}]}\n",
    "secrets: the value": SERVE + "deploy: {secrets: ['CANARY']}\n",
    "secrets: text": SERVE + "deploy: {secrets: 'CANARY'}\n",
    "secrets: name=value as text": SERVE + "deploy: {secrets: 'HF_TOKEN=CANARY'}\n",
    "secrets: name and value in a list": SERVE + "deploy: {secrets: [HF_TOKEN, 'CANARY']}\n",
    "secrets: nested": SERVE + "deploy: {secrets: [['CANARY']]}\n",
    "secret_files: the value": SERVE + "deploy: {secret_files: {HF_TOKEN: 'CANARY'}}\n",
    "secret_files: a list": SERVE + "deploy: {secret_files: ['HF_TOKEN=CANARY']}\n",
    "secret_files: a list of values": SERVE + "deploy: {secret_files: ['CANARY']}\n",
    "secret_files: text": SERVE + "deploy: {secret_files: 'CANARY'}\n",
    "secret_files: the key": SERVE + "deploy: {secret_files: {'CANARY': HF_TOKEN}}\n",
    "secret_files: a list below": SERVE + "deploy: {secret_files: {HF_TOKEN: ['CANARY']}}\n",
    "secret-files: misspelled": SERVE + "deploy: {secret_file: {HF_TOKEN: 'CANARY'}}\n",
    "deploy: variable": SERVE + "deploy: {HF_TOKEN: 'CANARY'}\n",
    "deploy: api_key": SERVE + "deploy: {api_key: 'CANARY'}\n",
    "deploy: password": SERVE + "deploy: {password: 'CANARY'}\n",
    "deploy: as text": SERVE + "deploy: 'api_key=CANARY'\n",
    "envs: a list below": SERVE + "experiment: {envs: {HF_TOKEN: ['CANARY']}}\n",
    "envs: a mapping below": SERVE + "experiment: {envs: {HF_TOKEN: {value: 'CANARY'}}}\n",
    "envs: a list": SERVE + "experiment: {envs: ['HF_TOKEN=CANARY']}\n",
    "envs: a list with an innocent name": SERVE + "experiment: {envs: ['MINE=CANARY']}\n",
    "envs: list of mappings": SERVE + "experiment: {envs: [{HF_TOKEN: 'CANARY'}]}\n",
    "envs: text": SERVE + "experiment: {envs: 'HF_TOKEN=CANARY'}\n",
    "envs: bad name": SERVE + "experiment: {envs: {'HF TOKEN': 'CANARY', 'A-TOKEN': 'CANARY'}}\n",
    "envs: value in the name": SERVE + "experiment: {envs: {'HF_TOKEN=CANARY': 1}}\n",
    "env instead of envs": SERVE + "experiment: {env: {HF_TOKEN: 'CANARY'}}\n",
    "envs: at the top": SERVE + "envs: {HF_TOKEN: 'CANARY'}\n",
    "envs: PGPASSWORD": SERVE + "experiment: {envs: {PGPASSWORD: ['CANARY']}}\n",
    "variable at the top": SERVE + "HF_TOKEN: 'CANARY'\n",
    "experiment: variable": SERVE + "experiment: {HF_TOKEN: 'CANARY'}\n",
    "model: api-key twice": "model_args: {m: {model: /q, api-key: ['CANARY', 'CANARY2']}}\n",
    "model: api-key mapping": "model_args: {m: {model: /q, api-key: {a: 'CANARY'}}}\n",
    "model: api_key in action-args": "model_args: {m: {model: /q, action-args: ['api-key=CANARY']}}\n",
    "model: --api-key in action-args": "model_args: {m: {model: /q, action-args: ['--api-key CANARY']}}\n",
    "model: --api-key before its value": "model_args: {m: {model: /q, action-args: [--api-key, 'CANARY']}}\n",
    "model: hf-token before its value": "model_args: {m: {model: /q, action-args: [x, hf-token, 'CANARY']}}\n",
    "model: apiKey": "model_args: {m: {model: /q, apiKey: 'CANARY'}}\n",
    "model: hf-token list": "model_args: {m: {model: /q, hf-token: ['CANARY', b]}}\n",
    "model: no model": "model_args: {m: {api-key: 'CANARY'}}\n",
    "model_args: directly": "model_args: {api-key: 'CANARY', model: /q}\n",
    "model_args: text": "model_args: 'api-key=CANARY'\n",
    "router: api-key": SERVE + "deploy: {router: {api-key: 'CANARY'}}\n",
    "router: text": SERVE + "deploy: {router: {policy: 'api_key=CANARY'}}\n",
    "tls: key": SERVE + "deploy: {tls: {key: 'CANARY'}}\n",
    "broken: an open list": SERVE + "deploy: {secrets: ['HF_TOKEN=CANARY'\n",
    "broken: a tab": SERVE + "deploy:\n\tapi_key: CANARY\n",
    "broken: two colons": SERVE + "deploy:\n  api_key: CANARY: x\n",
    "broken: a percent": SERVE + "deploy:\n  api_key: %CANARY\n HF_TOKEN: CANARY\n",
    "before_start: an option": SERVE + "experiment: {cmds: {before_start: \"login --password 'CANARY'\"}}\n",
    "after_stop: a word": SERVE + "experiment: {cmds: {after_stop: \"echo; a --api-key 'CANARY'; b\"}}\n",
    "notify: an option": SERVE + "deploy: {restart: {policy: on-failure, notify: \"tell --auth-token 'CANARY' x\"}}\n",
    "twice": SERVE + "experiment: {envs: {HF_TOKEN: 'CANARY', HF_TOKEN: 'CANARY2'}}\n",
    "default of a variable": SERVE + "experiment: {envs: {HF_TOKEN: '${oc.env:HF_TOKEN,CANARY}}'}}\n",
    "interpolated": SERVE + "experiment: {envs: {HF_TOKEN: '${CANARY}'}}\n",
    "JSON in a value": 'model_args: {m: {model: /q, gpus: \'{"api_key": "CANARY"}\'}}\n',
    "number": SERVE + "deploy: {port: 'api_key=CANARY'}\n",
    "url": SERVE + "deploy: {port: 'https://user:CANARY@host/x'}\n",
    "url query": SERVE + "deploy: {port: 'https://host/x?token=CANARY'}\n",
    "bearer": SERVE + "deploy: {port: 'Authorization: Bearer CANARY'}\n",
}
INVENTORIES = {
    "env list": "hosts:\n- {name: gpu01, env: ['HF_TOKEN=CANARY']}\n",
    "env innocent list": "hosts:\n- {name: gpu01, env: ['MINE=CANARY']}\n",
    "env text": "hosts:\n- {name: gpu01, env: 'HF_TOKEN=CANARY'}\n",
    "env value list": "hosts:\n- {name: gpu01, env: {HF_TOKEN: ['CANARY']}}\n",
    "env value mapping": "hosts:\n- {name: gpu01, env: {MINE: {x: 'CANARY'}}}\n",
    "env bad name": "hosts:\n- {name: gpu01, env: {'HF-TOKEN': 'CANARY', 'a b': 'CANARY'}}\n",
    "env value in name": "hosts:\n- {name: gpu01, env: {'HF_TOKEN=CANARY': 1}}\n",
    "before_start": "hosts:\n- {name: gpu01, before_start: \"login -u me --password 'CANARY' x\"}\n",
    "password": "hosts:\n- {name: gpu01, password: 'CANARY'}\n",
    "ssh password": "hosts:\n- {name: gpu01, ssh_pass: 'CANARY', ssh_password: 'CANARY'}\n",
    "variable": "hosts:\n- {name: gpu01, HF_TOKEN: 'CANARY'}\n",
    "user": "hosts:\n- {name: gpu01, user: 'password=CANARY'}\n",
    "gpus": "hosts:\n- {name: gpu01, gpus: 'api_key: CANARY'}\n",
    "defaults": "defaults: {env: ['HF_TOKEN=CANARY']}\nhosts: [gpu01]\n",
    "top": "api_key: 'CANARY'\nhosts: [gpu01]\n",
    "secrets": "secrets: {HF_TOKEN: 'CANARY'}\nhosts: [gpu01]\n",
    "broken": "hosts:\n- {name: gpu01, env: {HF_TOKEN: CANARY}\n",
    "ansible env": "all:\n  hosts:\n    gpu01: {env: ['HF_TOKEN=CANARY']}\n",
    "ansible vars": "all:\n  hosts:\n    gpu01: {env: {HF_TOKEN: ['CANARY']}}\n  vars: ['api_key=CANARY']\n",
    "ansible bad": "all:\n  hosts:\n    gpu01: 'ansible_password=CANARY'\n",
    "ansible template": "all:\n  hosts:\n    gpu01: {gpus: '{{ api_key', api_key: 'CANARY'}\n",
    "ini": "[all]\ngpu01 HF_TOKEN=CANARY gpus=x\n",
    "ini env": '[all]\ngpu01 env=\'{"HF_TOKEN": ["CANARY"]}\'\n',
    "ini password": "[all]\ngpu01 ansible_password=CANARY ansible_port=x\n",
    "ini broken": "[all]\ngpu01 ansible_password='CANARY\n",
    "ini broken section": "[all:vars\nansible_password=CANARY\n",
    "ini vars": "[all:vars]\nHF_TOKEN CANARY\napi_key=CANARY\ngpus=CANARY=x\n[all]\ngpu01\n",
    "hostfile": "gpu01 slots=8 HF_TOKEN=CANARY\n",
}
OVERRIDES = [
    ["deploy.secrets=['HF_TOKEN=CANARY']"],
    ["deploy.secrets=[HF_TOKEN=CANARY]"],
    ["deploy.secrets=CANARY"],
    ["deploy.secrets={HF_TOKEN: CANARY}"],
    ["deploy.secrets=[HF_TOKEN=CANARY"],
    ["deploy.secrets.HF_TOKEN=CANARY"],
    ["deploy.secret_files.HF_TOKEN=CANARY"],
    ["deploy.secret_files=[CANARY]"],
    ["experiment.envs.X_KEY.y=CANARY"],
    ["experiment.env.X_KEY=CANARY"],
    ["experiment.envs=HF_TOKEN=CANARY"],
    ["experiment.envs=[HF_TOKEN=CANARY]"],
    ["envs.HF_TOKEN=CANARY"],
    ["HF_TOKEN=CANARY"],
    ["~HF_TOKEN=CANARY"],
    ["HF_TOKEN:CANARY"],
    ["api-key:CANARY"],
    ["deploy.api_key=CANARY"],
    ["deploy.router.api_key=CANARY"],
    ["model_args.x.api-key=CANARY"],
    ["model_args.m.api-key=[CANARY,b]"],
    ["deploy.port=HF_TOKEN=CANARY"],
    ["--api-key", "CANARY"],
    ["--api-key=CANARY"],
    ["--hf-token=CANARY"],
    ["--forks", "HF_TOKEN=CANARY"],
]
NOWHERE = ("correct-horse", "battery", "Tr0ub4dor", "9f8e7d6c5b", "C4nary", "Canary0123", "canary-0123", "anaryCanary",
           "CANARY", "eyJzdWIi", "q7")  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", CANARIES[0])
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)


def shown(hosts: str, serve: str, words: list[str], canary: str) -> str:
    """Return all that two commands print, and all that they write."""
    Path("hosts.yaml").write_text(hosts.replace("CANARY", canary))
    Path("qwen.yaml").write_text(serve.replace("CANARY", canary))
    output = ""
    for command in (["plan", "--offline", "-i", "hosts.yaml", "-c", "qwen.yaml"], ["hosts", "-i", "hosts.yaml"]):
        more = [word.replace("CANARY", canary) for word in words] if command[0] == "plan" else []
        for option in ([], ["--json", "-v"]):
            result = CliRunner().invoke(cli, [*command, *option, *more])
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
            assert "internal error" not in result.output
            output += result.output
    return output


FORMS = [
    *((f"serve: {name}", HOSTS, text, []) for name, text in SERVE_YAML.items()),
    *((f"inventory: {name}", text, SERVE, []) for name, text in INVENTORIES.items()),
    *((f"override: {words}", HOSTS, SERVE, words) for words in OVERRIDES),
]


def mistaken(hosts: str, serve: str, words: list[str]) -> list[str]:
    """Return every third of the canaries that look like something else; where a path is meant, it may be quoted."""
    form = f"{hosts}{serve}{words}"
    chosen = [canary for at, canary in enumerate(MISTAKEN) if (at + len(form)) % 3 == 0]
    return [canary for canary in chosen if canary not in PATHS or not ("secret_files" in form or "${CANARY}" in form)]


@pytest.mark.parametrize(("hosts", "serve", "words"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
def test_a_canary_is_nowhere(hosts: str, serve: str, words: list[str]) -> None:
    at = len(f"{hosts}{serve}{words}")
    plain = CANARIES if WHOLE else (CANARIES[at % 4], CANARIES[(at + 1) % 4])
    for canary in (*plain, LOOKING[at % len(LOOKING)], *mistaken(hosts, serve, words)):
        output = shown(hosts, serve, words, canary)
        assert not [part for part in (canary, *NOWHERE) if part in output], output


def test_there_are_many_forms() -> None:
    assert len(FORMS) >= 100


def test_a_secret_flag_that_vllm_takes_is_not_in_a_plan() -> None:
    serve = SERVE.replace("gpus: 1", "gpus: 1, extra-headers-token: '$HOME`id`q7pass'")
    assert "q7pass" not in shown(HOSTS, serve, [], "")


def test_a_path_that_is_wrong_is_named() -> None:
    serve = SERVE + "deploy:\n  secret_files:\n    HF_TOKEN: /run/secrts/hf-token\n    B_KEY: ./b.key\n"
    output = shown(HOSTS, serve, [], "")
    assert "/run/secrts/hf-token does not exist" in output
    assert "./b.key does not exist" in output


@pytest.mark.parametrize("value", ["${oc.env:NOSUCH}", "${model_args.none.x}"])
def test_a_reference_that_is_wrong_is_named(value: str) -> None:
    output = shown(HOSTS, f"{SERVE}experiment: {{envs: {{HF_TOKEN: '{value}'}}}}\n", [], "")
    assert "NOSUCH" in output or "model_args.none.x" in output
