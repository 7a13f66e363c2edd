"""A hostile recipe sends no secret away, and runs no code but vLLM's and the model's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.recipes.folder import Folder
from flagscale_deploy.recipes.library import MOST_LISTED, MOST_MODELS, find_recipe, hardware_of, strategies_of
from flagscale_deploy.recipes.recipe import read_recipe
from flagscale_deploy.recipes.refused import FLAGS
from flagscale_deploy.recipes.variables import read_variables

PLACES = {
    "HF_ENDPOINT", "HF_HOME", "CC", "CXX", "OPENSSL_CONF", "GCONV_PATH", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE",
    "RAY_ADDRESS", "RAY_RUNTIME_ENV_HOOK", "RAY_AUTH_MODE", "XDG_CACHE_HOME", "SHELLOPTS", "PS4", "VIRTUAL_ENV",
    "GLIBC_TUNABLES", "AWS_ENDPOINT_URL", "MODELSCOPE_DOMAIN", "FLAGSCALE_DEPLOY_RUN", "PATH", "HOME", "LD_PRELOAD",
    "BASH_ENV", "ENV", "IFS", "PYTHONPATH", "PYTHONSTARTUP", "GIT_SSH_COMMAND", "HTTPS_PROXY", "SSL_CERT_FILE",
    "NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "NCCL_COMM_ID", "CUDA_INJECTION64_PATH", "OMP_TOOL_LIBRARIES",
    "VLLM_PLUGINS", "VLLM_LOGGING_CONFIG_PATH", "VLLM_NCCL_SO_PATH", "VLLM_CUDART_SO_PATH", "VLLM_USE_MODELSCOPE",
    "VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_SERVER_DEV_MODE",
    "VLLM_USAGE_STATS_SERVER", "TRITON_CACHE_MANAGER", "TRITON_REMOTE_CACHE_BACKEND", "NCCL_DEBUG_FILE",
    "NCCL_TOPO_DUMP_FILE", "NCCL_CONF_FILE", "VLLM_TORCH_PROFILER_DIR", "TRITON_CACHE_DIR",
}  # fmt: skip
"""Variables by which other code runs, secrets go elsewhere, or protection is taken away; at least."""
OUTSIDE = (
    "/tmp/x",
    "~/x",
    "../x",
    "a/b",
    "https://evil",
    "evil.example",
    "10.0.0.1:7",
    "lib.so",
    "a b",
    "`id`",
    "$(id)",
    "os:system",
)
VALUES = {
    "compilation-config": ['{"backend": "evil.module"}', '{"inductor_passes": {"a": "os.system"}}'],
    "hf-overrides": [
        '{"auto_map": {"AutoModel": "evil/repo--code.Class"}}', '{"auto_map": {"A": "code.Class"}}',
        '{"auto_map": {"A": "evil/repo--my-modeling.Class"}}', '{"auto_map": {"A": "evil/repo--3d.Class"}}',
        '{"auto_map": {"A": "sub/code"}}', '{"a": "evil/repo--x"}', '{"auto_map": {"A": "%s.Class"}}' % ("m" * 300),
    ],
    "hf-overrides.auto_map.AutoModel": ["evil/repo--my-modeling.Class", "code"],
    "hf-overrides.auto-map": ['{"A": "x"}'],
    "kv-transfer-config": ['{"kv_connector_module_path": "evil"}', '{"a": [{"b": "http://evil"}]}'],
    "kv-transfer-config.kv_connector_module_path": ["evil"],
    "kv-transfer-config.kv_ip": ["evil"],
    "ec-transfer-config": ['{"ec_ip": "evil"}', '{"a": [{"hosts": ["evil"]}]}'],
    "model-loader-extra-config": [
        json.dumps({"a": {key: text}})
        for key, text in (
            ("master_server_address", "evil.example:50051"), ("metadata_server", "evil"), ("endpoint_url", "evil"),
            ("x", "evil-host.example:80"), ("x", "evil:80"), ("x", "6.6.6.6"), ("x", "6.6.6.6:2379"),
            ("x", "2001:db8::1"), ("x", "[2001:db8::1]"), ("x", "[2001:db8::1]:80"), ("Proxy", "evil"),
        )
    ],
    "logits-processors": ["os.system", "evil:Class"],
    "tool-parser-plugin": ["/tmp/evil.py", "../evil.py", "~/evil.py"],
    "chat-template": ["/etc/shadow", "https://evil/x.jinja", ".ssh/id_ed25519", "a/.netrc", ".."],
    "structured-outputs-config": ['{"reasoning_parser_plugin": ".evil.py"}'],
    "allowed-local-media-path": ["/etc"],
    "some-flag-of-tomorrow": ["tcp://*:5557", "/dev/shm/x"],
}  # fmt: skip


def command(*words: str) -> None:
    argv = ["vllm", "serve", "a/b", *words]
    read_recipe(
        {"hardware": "h", "strategy": "s", "deploy_type": "single_node", "env": {}, "argv": argv}, "r", "h", "s"
    )


@pytest.mark.parametrize("name", sorted(PLACES))
def test_no_variable_decides_which_code_runs_or_who_is_asked(name: str) -> None:
    with pytest.raises(InputError, match="expected a variable of vLLM or its libraries"):
        read_variables({name: "1"}, "r: env")


@pytest.mark.parametrize("value", OUTSIDE)
def test_no_variable_names_a_place(value: str) -> None:
    with pytest.raises(InputError, match=r"expected (numbers and words|no placeholder)"):
        read_variables({"VLLM_CACHE_ROOT": value}, "r: env")


def test_numbers_words_and_lists_of_them_are_taken() -> None:
    taken = {"VLLM_A": "1", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True,garbage_threshold:0.8", "NCCL_X": "-1"}
    assert read_variables(taken, "r: env") == taken


@pytest.mark.parametrize("flag", sorted(FLAGS))
def test_no_flag_of_another_model_key_or_code_is_taken_nor_its_beginning(flag: str) -> None:
    for word in (f"--{flag}", f"--{flag.replace('-', '_')}", f"--{flag}.x", f"--{flag[:-1]}"):
        with pytest.raises(InputError, match=r"expected no such flag in a recipe|alone"):
            command(word, "x")


@pytest.mark.parametrize(("flag", "text"), [(flag, text) for flag, texts in VALUES.items() for text in texts])
def test_no_value_names_other_code_a_server_or_a_place_of_the_host(flag: str, text: str) -> None:
    with pytest.raises(InputError, match=r"expected no (code but|place of a host)"):
        command(f"--{flag}", text)


@pytest.mark.parametrize("reference", ["${oc.env:OURS}", "$OURS", "${experiment.exp_name}"])
@pytest.mark.parametrize("escaped", [False, True], ids=["as it is", "as JSON escapes it"])
def test_no_value_refers_to_anything_wherever_it_stands(reference: str, escaped: bool) -> None:
    text = "".join(f"\\u{ord(char):04x}" if escaped else char for char in reference)
    forms = ('{"a": "TEXT"}', '{"TEXT": 1}', '{"a": {"b": [1, ["x TEXT"]]}}', '{"a": {"TEXT": {}}}')
    values = [*(form.replace("TEXT", text) for form in forms), *([] if escaped else [text, f"x{text}"])]
    for flag in ("hf-overrides", "default-chat-template-kwargs", "chat-template", "of-tomorrow", "served-model-name"):
        for value in values:
            for words in ((f"--{flag}", value), (f"--{flag}={value}",), (f"--{flag}", "x", value)):
                with pytest.raises(InputError, match=r"no placeholder|expected a flag"):
                    command(*words)
    if not escaped:
        with pytest.raises(InputError, match="no placeholder"):
            command(f"--x.{text}", "1")


def test_a_recipe_serves_no_model_of_somebody_else(tmp_path: Path) -> None:
    file = tmp_path / "Org/m/hw/h/strategies/s.json"
    file.parent.mkdir(parents=True)
    for model, is_taken in (("evil/m", False), ("Org/m", True), ("org/m-FP8", True)):
        argv = ["vllm", "serve", model, "--trust-remote-code"]
        recipe = {"hardware": "h", "strategy": "s", "deploy_type": "single_node", "env": {}, "argv": argv}
        file.write_text(json.dumps(recipe))
        if is_taken:
            assert find_recipe(Folder(tmp_path), "Org/m", "h", "s").model == model
        else:
            with pytest.raises(InputError, match="found a recipe of evil/m, expected a model of Org"):
                find_recipe(Folder(tmp_path), "Org/m", "h", "s")


def test_a_link_has_no_letters_that_http_does_not_have(tmp_path: Path) -> None:
    file = tmp_path / "a/b/hw/h.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"strategy": "s", "alternatives": {"t": "/aä/b/strategies/é.json"}}))
    with pytest.raises(InputError, match=r"alternatives\.t: found"):
        strategies_of(Folder(tmp_path), "a/b", "h")


def test_a_long_list_of_models_is_compared_in_part(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text(json.dumps([{"hf_id": f"o/{number}"} for number in range(MOST_MODELS + 9)]))
    with pytest.raises(InputError, match=f"and {MOST_MODELS - MOST_LISTED:,} more"):
        hardware_of(Folder(tmp_path), "a/b")
