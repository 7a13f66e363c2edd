"""A program of a push ends when nobody reads its replies, whatever it was doing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flagscale_deploy

TOP = Path(flagscale_deploy.__file__).parents[1]
PROGRAM = """
from flagscale_deploy.remote.push.orders import OrderQueue, reply

def urgent(order):
    reply({"looked": True})
    return True

OrderQueue(lambda: None, urgent).next()
"""


@pytest.mark.parametrize("line", [b'{"alive": true}\n', b"no order\n"], ids=["a reply", "an error"])
def test_it_ends_at_a_reply_that_nobody_reads_while_its_input_stays_open(line: bytes) -> None:
    """As a host sees an operator who was killed: the connection's two directions need not end at the same time."""
    output, input_ = os.pipe(), os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=TOP, stdin=input_[0], stdout=output[1], stderr=subprocess.PIPE
    ) as program:
        for descriptor in (*output, input_[0]):
            os.close(descriptor)
        try:
            os.write(input_[1], line)
            assert program.wait(30) == 0, "at once, and not after a minute of silence"
        finally:
            program.kill()
            os.close(input_[1])
