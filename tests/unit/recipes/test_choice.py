"""Which recipe is taken where hardware or strategy is not named, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flagscale_deploy.errors import InputError
from flagscale_deploy.recipes.choice import HostGpus, choose
from flagscale_deploy.recipes.folder import Folder, open_folder
from flagscale_deploy.recipes.library import find_recipe, listed, strategies_of
from flagscale_deploy.recipes.name import Wish, read_wish

OURS = Folder(Path(__file__).parent / "library")
DENSE, SPARSE = "example/Dense-8B", "example/Sparse-48B-A3B"
H200 = "NVIDIA H200"


def hosts(*counts: int, name: str = H200) -> dict[str, HostGpus]:
    return {f"gpu{number:02}": HostGpus(count, name) for number, count in enumerate(counts, 1)}


def fault(wish: Wish, gpus: dict[str, HostGpus]) -> str:
    with pytest.raises(InputError) as raised:
        choose(OURS, wish, gpus)
    return str(raised.value)


def test_what_is_named_is_taken_whatever_the_hosts_have() -> None:
    choice = choose(OURS, Wish(DENSE, "h100", "single_node_tp"), {})
    assert (choice.recipe.hardware, choice.recipe.strategy, choice.reasons) == ("h100", "single_node_tp", ())


@pytest.mark.parametrize(
    ("wish", "gpus", "reasons"),
    [
        (
            Wish(DENSE),
            hosts(8, 8),
            [
                "hardware h200: the hosts have NVIDIA H200",
                "strategy single_node_tp: gpu01 has the 2 GPUs that are needed",
            ],
        ),
        (Wish(DENSE, strategy="multi_node_tp"), hosts(8), ["hardware h200: the hosts have NVIDIA H200"]),
        (Wish(DENSE, "h100"), hosts(1, 4), ["strategy single_node_tp: gpu02 has the 2 GPUs that are needed"]),
        (
            Wish(SPARSE, "h200"),
            hosts(8),
            ["strategy single_node_tep: gpu01 has the 8 GPUs that are needed; the site recommends it for h200"],
        ),
        (
            Wish(DENSE),
            hosts(8, name="NVIDIA H100 80GB HBM3"),
            [
                "hardware h100: the hosts have NVIDIA H100 80GB HBM3",
                "strategy single_node_tp: gpu01 has the 2 GPUs that are needed",
            ],
        ),
    ],
)
def test_what_is_not_named_follows_from_the_gpus(wish: Wish, gpus: dict[str, HostGpus], reasons: list[str]) -> None:
    assert list(choose(OURS, wish, gpus).reasons) == reasons


def test_several_hosts_are_taken_where_no_host_has_enough(tmp_path: Path) -> None:
    file = tmp_path / DENSE / "hw/h200/strategies/multi_node_tp.json"
    file.parent.mkdir(parents=True)
    file.write_text((OURS.path / file.relative_to(tmp_path)).read_text(encoding="utf-8"))
    choice = choose(Folder(tmp_path), Wish(DENSE, "h200"), hosts(8, 2, 8))
    assert choice.reasons == ("strategy multi_node_tp: 16 GPUs are needed and no host has more than 8",)
    choice = choose(Folder(tmp_path), Wish(DENSE, "h200"), hosts(16, 8, 8))
    assert choice.reasons == ("strategy multi_node_tp: 2 hosts with 8 GPUs are needed, and there are 3",)


def test_gpus_that_no_recipe_fits_are_told() -> None:
    text = fault(Wish(SPARSE, "h200"), hosts(4, 4))
    assert "single_node_tep needs 1 host with 8 GPUs" in text
    assert "GPUs of the hosts: gpu01 4, gpu02 4" in text
    assert "the names of the hosts' GPUs are not known" in fault(Wish(DENSE), hosts(8, name=""))
    assert "the hosts have NVIDIA A100-SXM4-80GB, expected" in fault(
        Wish(DENSE), hosts(8, name="NVIDIA A100-SXM4-80GB")
    )
    mixed = hosts(8) | {"old": HostGpus(8, "NVIDIA H100 PCIe")}
    assert "the hosts have NVIDIA H100 PCIe, NVIDIA H200, expected one" in fault(Wish(DENSE), mixed)
    assert "as in hardware=h100; there are: h100, h200" in fault(Wish(DENSE), mixed)


def test_what_does_not_exist_is_told_with_what_does_the_nearest_first() -> None:
    assert "there are: example/Dense-8B, example/Sparse-48B-A3B" in fault(Wish("example/Dense-7B"), {})
    assert "there are: h200, h100" in fault(Wish(DENSE, "h20", "single_node_tp"), {})
    assert "there are: single_node_tp, multi_node_tp, multi_node_tp_pp" in fault(
        Wish(DENSE, "h200", "single_node_tep"), {}
    )
    assert listed("x", [str(number) for number in range(40)]).endswith(", and 30 more")


def test_the_file_of_a_hardware_is_its_recommended_strategy_with_links_to_the_others() -> None:
    assert next(iter(strategies_of(OURS, SPARSE, "h200"))) == "single_node_tep"
    assert find_recipe(OURS, SPARSE, "h200", "single_node_tep").gpus == 8


@pytest.mark.parametrize("link", ["https://elsewhere.example/x.json", "/../../etc/passwd", "//x/y", 7, "/a/b/c.json"])
def test_a_link_leads_to_no_other_place(tmp_path: Path, link: object) -> None:
    file = tmp_path / DENSE / "hw/h200.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"strategy": "a", "alternatives": {"b": link}}))
    with pytest.raises(InputError, match=r"alternatives\.b: found .*expected /ORG/REPO"):
        strategies_of(Folder(tmp_path), DENSE, "h200")


@pytest.mark.parametrize("text", ["", "[1", "[" * 100_000, '{"a": ' * 200 + "1" + "}" * 200])
def test_a_file_that_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / DENSE / "hw/h200/strategies/single_node_tp.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(InputError, match=r"single_node_tp\.json: "):
        find_recipe(Folder(tmp_path), DENSE, "h200", "single_node_tp")


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"--recipes: there is no folder /nowhere"):
        open_folder("/nowhere")


@pytest.mark.parametrize("model", ["", "Qwen", "../etc/passwd", "a/../b", "a/b/c", "-a/b", "a/b\n"])
def test_a_model_is_an_organisation_and_a_repository(model: str) -> None:
    with pytest.raises(InputError, match="expected ORG/MODEL"):
        read_wish(f"recipe:{model}", ())


def test_words_that_choose_a_recipe_are_no_overrides() -> None:
    wish, others = read_wish("recipe:a/b", ("hardware=h200", "deploy.port=9000", "strategy=x", "hardware.y=1"))
    assert (wish, others) == (Wish("a/b", "h200", "x"), ("deploy.port=9000", "hardware.y=1"))
    with pytest.raises(InputError, match=r"hardware: found '\.\./x', expected a name"):
        read_wish("recipe:a/b", ("hardware=../x",))
    with pytest.raises(InputError, match="strategy: kv_store_mooncake needs a store for the KV cache"):
        read_wish("recipe:a/b", ("strategy=kv_store_mooncake",))
