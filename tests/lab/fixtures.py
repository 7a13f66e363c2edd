"""The lab as pytest fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.lab import Lab


@pytest.fixture(scope="module")
def make_lab() -> Iterator[Callable[..., Lab]]:
    """Make labs that live until the module's tests are done: `make_lab(hosts=3, gpus=2)`; see `Lab`.

    A lab of which anything remains afterwards fails the module.
    """
    with ExitStack() as labs:
        yield lambda *args, **kwargs: labs.enter_context(Lab(*args, **kwargs))
