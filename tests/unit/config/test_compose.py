from __future__ import annotations

from pathlib import Path

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.config.spec import ServeSpec
from flagscale_deploy.errors import InputError
from tests.unit.config.files import EXPERIMENT, LISTED, SEED, unplaced, write


def spec_of(folder: Path, *overrides: str) -> ServeSpec:
    return load_spec(folder / "conf" / "config.yaml", overrides, environ={})


def error_of(folder: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as raised:
        spec_of(folder, *overrides)
    return "\n".join(unplaced(str(fault), folder) for fault in raised.value.faults)


@pytest.mark.parametrize("body", [SEED, LISTED], ids=["seed", "list"])
def test_a_group_is_mounted_under_its_name(tmp_path: Path, body: str) -> None:
    write(tmp_path / "conf", {"config.yaml": EXPERIMENT, "serve/qwen2.5_7b.yaml": body})
    spec = spec_of(tmp_path)
    assert (spec.name, spec.exp_dir) == ("qwen2.5_7b", "outputs/qwen2.5_7b")
    assert spec.models[0].model == "/models/Qwen2.5-7B-Instruct"
    assert spec.env["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
    assert unplaced(spec.models[0].where, tmp_path).startswith("conf/serve/qwen2.5_7b.yaml: ")


def test_another_group_is_picked_on_the_command_line(tmp_path: Path) -> None:
    other = SEED.replace("Qwen2.5-7B", "Other")
    write(tmp_path / "conf", {"config.yaml": EXPERIMENT, "serve/qwen2.5_7b.yaml": SEED, "serve/other.yaml": other})
    assert spec_of(tmp_path, "serve=other", "deploy.port=9000").models[0].model == "/models/Other-Instruct"


def test_a_group_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path / "conf", {"config.yaml": EXPERIMENT, "serve/qwen2.5_72b.yaml": SEED})
    assert error_of(tmp_path) == (
        "conf/config.yaml: defaults.serve: conf/serve/qwen2.5_7b.yaml is not there\n"
        "    → did you mean qwen2.5_72b? (in conf/serve)"
    )


def test_a_group_without_a_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path / "conf", {"config.yaml": EXPERIMENT})
    assert "neither conf/serve/qwen2.5_7b.yaml nor its folder conf/serve is there" in error_of(tmp_path)


def test_faults_of_a_group_file_are_placed_in_it(tmp_path: Path) -> None:
    write(tmp_path / "conf", {"config.yaml": EXPERIMENT, "serve/qwen2.5_7b.yaml": f"{SEED}  prot: 1"})
    assert error_of(tmp_path).startswith("conf/serve/qwen2.5_7b.yaml: deploy.prot: unknown key")
    write(tmp_path / "conf", {"serve/qwen2.5_7b.yaml": "a: 1\na: 2"})
    assert error_of(tmp_path).startswith("conf/serve/qwen2.5_7b.yaml: found the key 'a' twice in one mapping")


@pytest.mark.parametrize(
    ("defaults", "port"),
    [("[_self_, {serve: a}]", 1), ("[{serve: a}, _self_]", 2), ("[{serve: a}]", 2), ("[{serve: null}]", 2)],
)
def test_the_later_entry_of_the_defaults_list_wins(tmp_path: Path, defaults: str, port: int) -> None:
    own = f"defaults: {defaults}\nserve: {{model_args: {{m: {{model: /m, port: 2}}}}}}"
    write(tmp_path / "conf", {"config.yaml": own, "serve/a.yaml": "model_args: {m: {model: /m, port: 1}}"})
    assert spec_of(tmp_path).models[0].port == port


def test_groups_may_have_groups_and_bases(tmp_path: Path) -> None:
    files = {
        "config.yaml": "defaults: [base, {serve: a}, {optional serve: none}, {override hydra/launcher: x}, _self_]",
        "base.yaml": "experiment: {exp_name: of-base}",
        "serve/a.yaml": "defaults: [b]\nmodel_args: {m: {port: 5}}",
        "serve/b.yaml": "model_args: {m: {model: /m}}",
    }
    write(tmp_path / "conf", files)
    spec = spec_of(tmp_path)
    assert (spec.name, spec.models[0].model, spec.models[0].port) == ("of-base", "/m", 5)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"config.yaml": "defaults: [config]"}, "conf/config.yaml: defaults: includes itself"),
        ({"config.yaml": "defaults: [[a]]"}, "conf/config.yaml: defaults: holds a list"),
        ({"config.yaml": "defaults: [{a: b, c: d}]"}, "conf/config.yaml: defaults: holds a mapping"),
        ({"config.yaml": "defaults: [{serve: a}]", "serve/a.yaml": ""}, "conf/serve/a.yaml: is empty"),
        ({"config.yaml": "defaults: [a]", "a.yaml": "[1]"}, "conf/a.yaml: holds a list"),
        (
            {"config.yaml": "defaults: [{serve: a}]", "serve/b.txt": ""},
            "conf/config.yaml: defaults.serve: conf/serve/a.yaml is not there",
        ),
    ],
)
def test_what_cannot_be_composed_is_named(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    write(tmp_path / "conf", files)
    assert error_of(tmp_path).startswith(problem)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.yaml": "defaults: [{serve: x}]", "serve/2.yaml": SEED}, ["serve=2"]),
        ({"config.yaml": "defaults: [{serve: x}]", "serve/2.50.yaml": SEED}, ["serve=2.50"]),
        ({"config.yaml": "experiment: {exp_name: x}", "serve/x.1.yaml": SEED}, ["serve=x.1"]),
        ({"config.yaml": "experiment: {exp_name: x}", "serve/x.1.yaml": SEED}, ["+serve=x.1"]),
        ({"config.yaml": "defaults: [serve/x, _self_]", "serve/x.yaml": SEED}, []),
        ({"config.yaml": "defaults: [{/serve: x}]", "serve/x.yaml": SEED}, []),
        ({"config.yaml": "defaults: [{/serve: y}]", "serve/x.yaml": SEED}, ["serve=x"]),
        ({"config.yaml": "defaults: [{models@serve: x}]", "models/x.yaml": SEED}, []),
        ({"config.yaml": "defaults: [{models@_global_: x}]", "models/x.yaml": SEED}, []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value["config.yaml"],
)
def test_groups_are_named_as_in_hydra(tmp_path: Path, files: dict[str, str], words: list[str]) -> None:
    write(tmp_path, files)
    assert load_spec(tmp_path / "config.yaml", words, environ={}).models[0].port == 4567


@pytest.mark.parametrize("entry", ["/base", "base@serve"])
def test_what_a_group_file_cannot_do_is_named(tmp_path: Path, entry: str) -> None:
    files = {"config.yaml": "defaults: [{serve: x}]", "serve/x.yaml": f"defaults: [{{{entry}: y}}]"}
    write(tmp_path, files)
    with pytest.raises(InputError, match=f"defaults.{entry}: is supported at the top only"):
        load_spec(tmp_path / "config.yaml", environ={})


def test_an_appended_group_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path, {"config.yaml": "experiment: {exp_name: x}", "serve/seven.yaml": SEED})
    with pytest.raises(InputError, match="seven"):
        load_spec(tmp_path / "config.yaml", ["+serve=eight"], environ={})
