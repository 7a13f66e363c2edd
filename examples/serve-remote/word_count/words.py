"""Words and how many there are of them."""

from collections import Counter


def split_evenly(text, parts):
    """Split a text's words into as many parts as asked for, each a text again."""
    words = text.split()
    return [" ".join(words[at::parts]) for at in range(parts)]


def count_words(text):
    return Counter(text.split())
