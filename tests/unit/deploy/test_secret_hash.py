from __future__ import annotations

import time

import pytest

from flagscale_deploy.deploy.secret_hash import differing_secrets, hash_secrets, same_secrets
from flagscale_deploy.secrets import Secret

SECRETS = {"": {"VLLM_API_KEY": Secret("k1"), "HF_TOKEN": Secret("hf")}, "gpu01": {}}


def test_a_hash_is_of_names_values_and_hosts_and_holds_none_of_them() -> None:
    recorded = hash_secrets(SECRETS)
    assert same_secrets(recorded, SECRETS)
    assert same_secrets(recorded, {"gpu01": {}, "": dict(reversed(SECRETS[""].items()))}), "in any order"
    for changed in (
        {"": {**SECRETS[""], "VLLM_API_KEY": Secret("k2")}},
        {"": {"VLLM_API_KEY": Secret("hf"), "HF_TOKEN": Secret("k1")}},
        {"": {"VLLM_API_KEY": Secret("k1")}},
        {"gpu01": SECRETS[""]},
        {"": SECRETS[""], "gpu01": {"PASSWORD": Secret("p")}},
        {},
    ):
        assert not same_secrets(recorded, changed)
    assert all(text not in recorded for text in ("k1", "hf", "VLLM"))


def test_a_salt_is_of_one_record() -> None:
    assert hash_secrets(SECRETS) != hash_secrets(SECRETS)


def test_a_guess_takes_its_time() -> None:
    began = time.process_time()
    hash_secrets(SECRETS)
    assert 0.02 < time.process_time() - began < 10


def test_without_secrets_nothing_is_hashed() -> None:
    assert hash_secrets({"": {}, "gpu01": {}}) == ""


@pytest.mark.parametrize("recorded", [None, "", "x", 5, ["a"], "0" * 97, "$", "zz$" + "0" * 64])
def test_a_record_without_a_hash_of_ours_counts_by_its_names_alone(recorded: object) -> None:
    assert same_secrets(recorded, SECRETS)


def test_a_key_of_the_gate_is_told_apart_from_secrets_of_servers() -> None:
    with_gate = {**SECRETS, "gate": {"alice": Secret("a1")}}
    recorded = hash_secrets(with_gate)
    assert differing_secrets(recorded, with_gate) == (False, False)
    assert differing_secrets(recorded, {**SECRETS, "gate": {"alice": Secret("a2")}}) == (False, True)
    assert differing_secrets(recorded, SECRETS) == (False, True)
    assert differing_secrets(recorded, {"": {}, "gate": with_gate["gate"]}) == (True, False)
    assert differing_secrets(hash_secrets(SECRETS), with_gate) == (False, True)
    assert differing_secrets(recorded, {}) == (True, True)
