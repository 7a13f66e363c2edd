"""Which name is suggested for a misspelled one."""

from __future__ import annotations

import time

from flagscale_deploy.support.suggest import MOST_NAMES, nearest, suggest, suggesting

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


def test_a_long_word_has_no_suggestion() -> None:
    assert nearest("x" * 65, ["x" * 66]) is None


def test_of_very_many_names_the_neighbours_in_the_alphabet_are_compared() -> None:
    names = [f"gpu-node-{number:05}" for number in range(50 * MOST_NAMES)]
    assert nearest("gpu-node-43210x", names) == "gpu-node-43210"
    assert suggest("zzz", names) == "none of the 50,000 names is like it"


def test_words_of_one_reading_share_what_suggestions_cost() -> None:
    names = ["a" * 50 + str(number) for number in range(50 * MOST_NAMES)]
    began = time.process_time()
    with suggesting():
        suggested = [nearest("a" * 50 + f"b{number}", names) for number in range(300)]
        with suggesting():
            assert nearest("prot", NAMES) is None, "the budget of the block around it"
    assert time.process_time() - began < 60
    assert suggested[0] is not None
    assert suggested[-1] is None
    with suggesting():
        assert [nearest("prot", NAMES) for _ in range(1000)] == ["port"] * 1000
