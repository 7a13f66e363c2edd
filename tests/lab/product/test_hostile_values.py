"""Values that a shell would act on arrive at the engine as they were written, and nothing of them is executed."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator
from tests.lab.product.stand_in import given

Write = Callable[..., Serve]
HOSTILE = [
    'it\'s "quoted"',
    "$(touch /tmp/pwned)",
    "`touch /tmp/pwned`",
    "; touch /tmp/pwned #",
    "two\nlines\n$(touch /tmp/pwned)",
    "-leading --dash=1",
    "ünï ☃ 模型",
    "back\\slash $HOME ${PATH} %s {{ 1 + 1 }} {% raw %}",
    "~/* ? [a-z] !! &",
    " spaces  around ",
    "'",
    "EOF\nPYTHON\n",
]


def test_hostile_values_arrive_as_they_are(lab: Lab, operator: Operator, serve: Write) -> None:
    written = [value.replace("${", "\\${") for value in HOSTILE]  # the configuration's own interpolation
    envs = {f"HOSTILE_{at}": value.replace("$", "$$") for at, value in enumerate(HOSTILE)}
    flags = {f"hostile-{at}": value for at, value in enumerate(written)}
    model = '/models/a b\'s "$(touch /tmp/pwned)" `touch /tmp/pwned` ☃'
    served = serve(
        envs=envs,
        flags=flags
        | {"model-tag": model, "served-model-name": HOSTILE[0], "override-generation-config": {"x": written}},
    )
    operator("run", "-c", served.config, "--skip-check", "model-path")  # there is no such model
    seen = given(lab.hosts[0], served.port)
    assert seen["argv"][1:3] == ["serve", model]
    for at, value in enumerate(HOSTILE):
        assert f"--hostile-{at}={value}" in seen["argv"]
        assert seen["environ"][f"HOSTILE_{at}"] == value
    generation = next(word for word in seen["argv"] if word.startswith("--override-generation-config="))
    assert json.loads(generation.partition("=")[2]) == {"x": HOSTILE}
    assert len(seen["argv"]) == 3 + len(HOSTILE) + 3
    assert_nothing_was_executed(lab)
    assert operator("call", HOSTILE[1], "--name", served.name).out == f"you said: {HOSTILE[1]}\n"
    operator("cleanup", "--name", served.name)
    assert_nothing_was_executed(lab)


def test_a_hostile_name_is_refused(operator: Operator, serve: Write) -> None:
    refused = operator("run", "-c", serve("a;$(touch /tmp/pwned)").config, exits=2)
    assert "experiment.exp_name: 'a;$(touch /tmp/pwned)' cannot name a deployment" in refused.err


def test_words_of_exec_are_arguments(lab: Lab, operator: Operator) -> None:
    done = operator("exec", "--limit", "node1", "--json", "--", "printf", "%s\\n", *HOSTILE).json
    assert done["hosts"]["node1"]["stdout"] == "".join(f"{word}\n" for word in HOSTILE)
    assert_nothing_was_executed(lab)


def assert_nothing_was_executed(lab: Lab) -> None:
    assert not [path for host in lab.hosts for path in host.directory.glob("**/pwned")]
