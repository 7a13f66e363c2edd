"""Which name is suggested for a misspelled one."""

from __future__ import annotations

from flagscale_deploy.support.suggest import nearest, suggest

NAMES = ("max-model-len", "max-num-seqs", "port")


def test_the_nearest_name_is_found_whatever_its_dashes() -> None:
    assert nearest("max_model_length", NAMES) == "max-model-len"
    assert nearest("tensor", NAMES) is None
    assert nearest("port", ()) is None


def test_a_suggestion_names_the_nearest_or_lists_the_names() -> None:
    assert suggest("prot", NAMES) == "did you mean port?"
    assert suggest("xyz", NAMES) == "known: max-model-len, max-num-seqs, port"
    assert suggest("xyz", NAMES, "correct it") == "correct it"
    assert suggest("xyz", ()) == "take it out"
