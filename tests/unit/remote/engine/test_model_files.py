"""A model as it lies on a host: whole, incomplete, unreadable, in one file."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.facts.model import ModelFiles
from flagscale_deploy.remote.engine import model_files
from tests.other_user import as_nobody, needs_root

CONFIG = {"architectures": ["Qwen2ForCausalLM"], "num_attention_heads": 4}
WEIGHT_MAP = {
    "a": "model-00001-of-00002.safetensors",
    "b": "model-00002-of-00002.safetensors",
    "c": "model-00001-of-00002.safetensors",
}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3930000000\n"


def safetensors(size: int, name: str = "w") -> bytes:
    """Write a file of so many bytes with one tensor of bytes."""
    room = size - 8 - len(json.dumps({name: {"dtype": "U8", "shape": [100], "data_offsets": [0, 100]}}))
    for data in range(max(room - 8, 0), size):
        header = json.dumps({name: {"dtype": "U8", "shape": [data], "data_offsets": [0, data]}}).encode()
        if 8 + len(header) + data == size:
            return len(header).to_bytes(8, "little") + header + bytes(data)
    raise ValueError(size)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "tokenizer.json").write_text("{}")
    (path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (path / "modeling_qwen.py").write_text("x = 1\n")
    (path / "README.md").write_text("about it")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": WEIGHT_MAP}))
    for number in (1, 2):
        (path / f"model-0000{number}-of-00002.safetensors").write_bytes(safetensors(100 * number))
    (path / "training_args.bin").write_bytes(b"w")
    return path


def look(path: Path | str) -> ModelFiles:
    answer: Any = model_files.look(str(path))
    return ModelFiles(**answer)


def test_a_whole_model(model: Path) -> None:
    files = look(model)
    assert (files.path, files.problem, files.config) == (str(model), "", CONFIG)
    assert set(files.hashes) == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "modeling_qwen.py", "model.safetensors.index.json",
    }  # fmt: skip
    assert files.hashes["modeling_qwen.py"] == hashlib.sha256(b"x = 1\n").hexdigest()
    assert files.weights == {"model-00001-of-00002.safetensors": 100, "model-00002-of-00002.safetensors": 200}
    assert list(files.indexed) == sorted(set(WEIGHT_MAP.values()))
    assert (files.torn, files.total) == ({}, None)
    assert files.chat_template


def test_weights_that_an_index_names_and_that_are_not_there(model: Path) -> None:
    (model / "model-00002-of-00002.safetensors").unlink()
    (model / "model-00002-of-00002.safetensors").symlink_to("../blobs/gone")
    files = look(model)
    assert set(files.indexed) - set(files.weights) == {"model-00002-of-00002.safetensors"}
    assert files.problem == ""


def test_what_an_index_says_of_the_size_is_told(model: Path) -> None:
    index = {"metadata": {"total_size": 145412407296}, "weight_map": WEIGHT_MAP}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert look(model).total == 145412407296


def test_parts_say_how_many_there_are_where_there_is_no_index(model: Path) -> None:
    (model / "model.safetensors.index.json").unlink()
    (model / "consolidated-00001-of-00008.safetensors").write_bytes(safetensors(100))
    (model / "pytorch_model-00001-of-00003.bin").write_bytes(b"w")
    assert list(look(model).indexed) == sorted(set(WEIGHT_MAP.values()))
    for name in set(WEIGHT_MAP.values()):
        (model / name).unlink()
    assert list(look(model).indexed) == [f"pytorch_model-0000{part}-of-00003.bin" for part in (1, 2, 3)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (POINTER, f"is a Git LFS pointer of {len(POINTER)} bytes"),
        (safetensors(200)[:-1], "is cut off: 199 of 200 bytes"),
        (safetensors(200)[:40], "is cut off after 40 bytes, in its header"),
        (safetensors(200) + b"x", "has 201 bytes, 200 by its header"),
        (b"<html><body>Please log in</body></html>", "is not a safetensors file"),
        (b"w" * 4, "is not a safetensors file"),
        (b"", None),
    ],
)
def test_weights_that_are_not_whole(model: Path, content: bytes, problem: str | None) -> None:
    (model / "model-00002-of-00002.safetensors").write_bytes(content)
    assert look(model).torn == ({"model-00002-of-00002.safetensors": problem} if problem else {})


def test_a_pointer_in_place_of_another_format_is_told_as_well(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(POINTER)
    (model / "tf.bin").write_bytes(b"w" * 100)
    assert list(look(model).torn) == ["pytorch_model.bin"]
    assert list(look(model).pointers) == ["pytorch_model.bin"]


def test_a_template_in_a_file_of_its_own_or_none(model: Path) -> None:
    (model / "tokenizer_config.json").write_text("{}")
    assert not look(model).chat_template
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert look(model).chat_template
    assert "chat_template.jinja" in look(model).hashes


def test_a_small_file_that_is_large_is_told_by_its_size(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "HASHED_BYTES", 1000)
    (model / "vocab.txt").write_bytes(b"v" * 1001)
    assert look(model).hashes["vocab.txt"] == "1001 bytes"


def break_json(model: Path) -> None:
    (model / "config.json").write_text("{'a': 1}")


def hold_a_list(model: Path) -> None:
    (model / "config.json").write_text("[]")


def grow(model: Path) -> None:
    (model / "config.json").write_text(json.dumps("x" * (1 << 20)))


def remove(model: Path) -> None:
    (model / "config.json").unlink()


@pytest.mark.parametrize(
    ("breaking", "problem"),
    [
        (remove, "it has no config.json"),
        (break_json, "config.json is not JSON"),
        (hold_a_list, "config.json is not a JSON object"),
        (grow, "config.json is larger than 1 MiB"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_else(model: Path, breaking: Callable[[Path], None], problem: str) -> None:
    breaking(model)
    files = look(model)
    assert files.problem.startswith(problem)
    assert files == ModelFiles(str(model), files.problem, indexed=files.indexed, pointers=files.pointers)
    assert list(files.indexed) == list(files.pointers) == []


def test_a_format_that_has_no_config_json_is_no_problem(model: Path) -> None:
    (model / "config.json").rename(model / "params.json")
    assert (look(model).problem, look(model).config) == ("", {})


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert look(tmp_path / "missing").problem == "no such file or directory"


def test_a_tilde_is_nothing_that_vllm_reads(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert look("~/model").problem == f"vLLM does not read ~: write {model}"


def test_a_relative_path_counts_from_the_home_directory(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert (look("./model").path, look("./model").problem) == ("./model", "")


@needs_root
@pytest.mark.parametrize(
    ("closed", "problem"),
    [
        ("", "permission denied"),
        ("config.json", "permission denied: config.json"),
        ("model-00002-of-00002.safetensors", "permission denied: model-00002-of-00002.safetensors"),
    ],
)
def test_what_we_may_not_read_is_told(model: Path, closed: str, problem: str) -> None:
    for folder in (model, *model.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
        if folder == Path("/tmp"):
            break
    (model / closed).chmod(0)
    files: dict[str, Any] = as_nobody(lambda: model_files.look(str(model)))
    assert files["problem"] == problem


def test_a_model_in_one_file_and_in_several(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF...tokenizer.chat_template...")
    (tmp_path / "b-00001-of-00003.gguf").write_bytes(b"GGUF" * 10)
    (tmp_path / "b-00003-of-00003.gguf").write_bytes(b"GGUF")
    whole, parts = look(tmp_path / "a.gguf"), look(tmp_path / "b-00001-of-00003.gguf")
    assert (whole.problem, whole.weights, list(whole.indexed), whole.chat_template) == (
        "", {"a.gguf": 33}, ["a.gguf"], True,
    )  # fmt: skip
    assert parts.weights == {"b-00001-of-00003.gguf": 40, "b-00003-of-00003.gguf": 4}
    assert len(parts.indexed) == 3
    assert not parts.chat_template


def test_what_no_reply_takes_of_a_configuration_is_that_models_and_not_the_hosts(model: Path) -> None:
    content = '{"a": %s, "b": [-%s, {"c": %s}], "d": %s, "e": 1e400, "f": true}'
    numbers = ("9" * 32, "9" * 19, "1" + "0" * 19, "9" * 19)
    (model / "config.json").write_text(content % numbers)
    (model / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    files = look(model)
    assert files.problem == ""
    assert files.config == {"a": None, "b": [None, {"c": None}], "d": int("9" * 19), "e": None, "f": True}
    for opened, closed in (("[", "]"), ('{"x":', "}")):
        for levels in (60, 80, 5000, 100_000):
            (model / "config.json").write_text(f'{{"a": {opened * levels}1{closed * levels}}}')
            problem = look(model).problem
            assert ("nested" in problem) is (levels > 64), problem
            json.dumps(model_files.look(str(model)))


def test_a_file_system_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(model_files, "SECONDS", 0.2)
    monkeypatch.setattr(os, "listdir", lambda _: threading.Event().wait(60))
    (files,) = model_files.observe([str(tmp_path)])
    assert files["problem"].startswith("its file system did not answer")
