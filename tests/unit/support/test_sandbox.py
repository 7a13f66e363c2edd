"""What templates of users may do, in scripts and in inventories: no Python, no long time, no large text."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from flagscale_deploy.config.load import load_spec
from flagscale_deploy.errors import Fault, InputError
from flagscale_deploy.inventory.ansible_filters import FILTERS as ANSIBLE
from flagscale_deploy.inventory.load import parse_inventory
from flagscale_deploy.plan.inputs import Inputs
from flagscale_deploy.plan.planner import plan
from flagscale_deploy.rendering.render import Templates, load_templates
from flagscale_deploy.support.sandbox import WRONG, BoundedEnvironment
from flagscale_deploy.support.template_budget import LARGEST, Budget
from flagscale_deploy.support.yaml import dump

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("qwen*.yaml"))
SECONDS = 20.0
"""Processor time: without bounds it is minutes; with them at most 1 s on an idle machine."""
MEMORY = 300 << 20

EXPRESSIONS = (
    "9 ** 9 ** 9",
    "2 ** 100000000",
    "(10 ** 4000) ** 4000",
    "'x' * 10 ** 10",
    "10 ** 10 * 'x'",
    "[0] * 10 ** 10",
    "([0] * 1000) * 1000000",
    "'%1000000000d' % 1",
    "'%*d' % (1000000000, 1)",
    "'%.1000000000f' % 1.5",
    "'{:1000000000}'.format(1)",
    "'{:{}}'.format(1, '1000000000')",
    "'{0:>1000000000}'.format_map({'0': 1})",
    "'{a:1000000000}'.format_map({'a': 1})",
    "'%1000000000d' | format(1)",
    "'%*d' | format(1000000000, 1)",
    "'x' | center(1000000000)",
    "'x'.center(1000000000)",
    "'x'.zfill(1000000000)",
    "'x'.ljust(1000000000)",
    "'\t'.expandtabs(1000000000)",
    "(1).to_bytes(1000000000, 'big')",
    "'x' | indent(1000000000, true)",
    "('x\n' * 60000) | indent(60000)",
    "'x' | truncate(1000000000)",
    "('x ' * 60000) | wordwrap(1, true, 'x' * 60000)",
    "('x' * 60000).replace('x', 'x' * 60000)",
    "('x' * 60000) | replace('x', 'x' * 60000)",
    "('x' * 60000).join('x' * 60000)",
    "range(60000) | join('x' * 60000)",
    "[1] | batch(1000000000, 'x') | list",
    "'x' | slice(1000000000) | list",
    "{'a': 1} | tojson(1000000000)",
    "1.5 | round(1000000000, 'ceil')",
    "lipsum(1000000)",
    "lipsum(n=1000000)",
    "range(10 ** 10) | list",
    "range(100000) | map('replace', '1', 'x' * 60000) | list",
    "range(100000) | map('center', 60000) | join",
    "range(100000) | map('string') | map('list') | sum(start=[])",
    "('<!--' ~ '-->' * 60000) * 2 | striptags",
    "('<!-- -->' * 30000) | striptags",
    "('http://' * 30000) | urlize",
    "'x'.translate({120: 'x' * 100000}) * 100",
    "('x' * 100000).translate({120: 'x' * 100000})",
    "cycler.__init__.__globals__.os.popen('id').read()",
    "''.__class__.__mro__[1].__subclasses__()",
    "'{0.__class__.__mro__}'.format('')",
    "namespace.__init__.__globals__",
    "(1).from_bytes('x' * 10)",
    "'x'.maketrans('a', 'b')",
    "{}.fromkeys(range(100000), 'x' * 100000)",
)
LOOPS = (
    "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in 'a' %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{% for b in range(100000) if false %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}{% for b in range(100000) if not loop %}x{% endfor %}{% endfor %}",
    "{% for a in range(100000) %}" + "x" * 50_000 + "{% endfor %}",
    "{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "{% set a = 'xxxxxxxx' %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
    "{% set a = 'xxxxxxxx' %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40 + "{{ a }}",
    "{% set a = [1, 2] %}" + "{% set a = [a, a] %}" * 40 + "{{ a }}",
    "{% set a = (1, 2) %}" + "{% set a = (a, a) %}" * 40 + "{{ {a: 1} }}",
    "{% set a = {'b': 1} %}" + "{% set a = {'b': a, 'c': a} %}" * 40 + "{{ a | tojson }}",
    "{% set a = [1] %}{% set b = [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40 + "{{ a == b }}",
    "{% set a = 'x' * 200000 %}{{ " + " ~ ".join(["a"] * 5000) + " }}",
    "{% set n = namespace(a='x') %}{% for b in range(100) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}",
    "{% for a in range(100) recursive %}{{ loop(range(100)) if loop.depth < 20 }}{% endfor %}",
    "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}{% call f() %}{{ 2 ** 99999 }}{% endcall %}{% endcall %}",
    "{% filter center(1000000000) %}x{% endfilter %}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "-" * 3000 + "1 }}",
    "{{ " + "1+" * 3000 + "1 }}",
    "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "{% if 1 %}" * 1000 + "{% endif %}" * 1000,
    "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "{{ " + "9" * 5000 + " }}",
    "{% set a = 'x' * 200000 %}{% for b in range(100000) %}{% if a == a[1:] %}{% endif %}{% endfor %}",
    "{% set a = 'x' * 200000 %}{% for b in range(100000) %}{% if 'y' in a %}{% endif %}{% endfor %}",
)
SCRIPTS = (
    '{% include "ray_head.sh.j2" %}',
    '{% extends "ray_head.sh.j2" %}',
    '{% import "ray_head.sh.j2" as a %}',
    '{% set d = d | default(60) - 1 %}{% for a in "ab" if d %}{% include "ray_head.sh.j2" %}{% endfor %}',
    '{% for a in range(100000) %}{% include "after_stop.sh.j2" %}{% endfor %}',
)
CONTEXT = {"deployment": "qwen", "host": "gpu01", "run_id": "r", "path": Path("/tmp/victim"), "pure": PurePath("/")}


def bounded(act: Callable[[], object]) -> str:
    """Return the problem of an act that soon and in little memory succeeds, or fails with an error of input."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    began = time.process_time()
    faults: list[Fault] = []
    try:
        act()
    except InputError as error:
        faults += error.faults
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < MEMORY
    assert sum(len(str(fault)) for fault in faults) < 1000
    return faults[0].problem if faults else ""


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda text: text[:40])
def test_no_expression_takes_long(tmp_path: Path, expression: str) -> None:
    inventory = dump({"all": {"vars": {"ansible_user": "{{ " + expression + " }}"}, "hosts": {"gpu01": None}}})
    bounded(lambda: parse_inventory(inventory))
    (tmp_path / "ray_head.sh.j2").write_text("{{ " + expression + " }}", encoding="utf-8")
    bounded(lambda: load_templates(tmp_path).render("ray_head.sh.j2", **CONTEXT))


@pytest.mark.parametrize("text", LOOPS, ids=lambda text: text[:60])
def test_no_statement_takes_long(tmp_path: Path, text: str) -> None:
    inventory = dump({"all": {"vars": {"ansible_user": text}, "hosts": {"gpu01": None}}})
    bounded(lambda: parse_inventory(inventory))
    (tmp_path / "ray_head.sh.j2").write_text(text, encoding="utf-8")
    bounded(lambda: load_templates(tmp_path).render("ray_head.sh.j2", **CONTEXT))


WHOLE = os.environ.get("FSD_FAULTS") == "all"
ENVIRONMENT = BoundedEnvironment(ANSIBLE)
FILTERS = sorted(name for name in ENVIRONMENT.filters if not name.startswith(("_", "ansible.")))
TESTS = sorted(name for name in ENVIRONMENT.tests if name.isalpha())
SEEDS = (")", ".", "<!--", "<a>", "&gt;", "a ", "a-", "http://", "a@b.", "(", "\n", "é")
ARGUMENTS = {"replace": "('a', 'b')", "join": "('x')", "map": "('upper')", "groupby": "(0)", "attr": "('x')"}
ARGUMENTS |= {"ternary": "(v, v)", "combine": "(v)", "split": "('a')", "regex_search": "('(a+).?$', '\\\\1')"}
ARGUMENTS["regex_replace"] = "('(.)(a?)', '\\\\1' * 99)"
ARGUMENTS |= dict.fromkeys(("batch", "slice"), "(7)") | dict.fromkeys(("select", "reject"), "('eq', 1)")


def exhaust(expression: str, value: object) -> None:
    """Evaluate an expression until the budget is spent, or it fails. Raises AssertionError for more than SECONDS."""
    began = time.process_time()
    try:
        with Budget(0).share():
            ENVIRONMENT.from_string(
                "{% for _ in range(100000) %}{{ x if EXPRESSION }}{% endfor %}".replace("EXPRESSION", expression)
            ).render(v=value, x="")
    except WRONG:
        pass
    assert time.process_time() - began < SECONDS, (expression, str(value)[:10])


def share_of_time(expression: str, value: object) -> float:
    """Return how much of 1 s an expression would take if the whole budget were spent on it."""
    budget = Budget(0)
    whole = budget.left
    with budget.share():
        try:
            template = ENVIRONMENT.from_string("{% set x = " + expression + " %}")
            before, began = budget.left, time.process_time()
            template.render(v=value)
        except WRONG:
            return 0.0
    return (time.process_time() - began) * whole / (before - budget.left)


@pytest.mark.parametrize(
    "operation", [*(f"| {name}{ARGUMENTS.get(name, '')}" for name in FILTERS), *(f"is {name}" for name in TESTS)]
)
def test_no_filter_or_test_takes_long_on_any_value(operation: str) -> None:
    """Each on large texts and lists, once; on the worst of them until the budget is spent."""
    worst: tuple[float, object] = 1.0, None
    for seed in SEEDS if WHOLE else SEEDS[:: len(SEEDS) // 3]:
        text = seed * (LARGEST // len(seed) - 1)
        for value in (text, text[: LARGEST // 3], list(text[: LARGEST // 3]), dict.fromkeys(text[:9], text[:20_000])):
            began = time.process_time()
            share = share_of_time(f"v {operation}", value)
            assert time.process_time() - began < SECONDS
            worst = max(worst, (share, value), key=lambda pair: pair[0])
    if worst[0] > 1.3 and operation not in ("is defined", "is none", "is undefined"):
        exhaust(f"v {operation}", worst[1])


@pytest.mark.parametrize(
    "text",
    [
        "{{x}}" * 100_000,
        "x" * 4_000_000 + "{{x}}",
        "{% if x == 1 %}1" + "{% elif x == 2 %}2" * 20_000 + "{% endif %}",
        "{% if x == 1 %}1" + "{% elif x == 2 %}2" * 2500 + "{% endif %}",
        "{% set x = 1 %}" * 4000,
        "{{ [" + "x," * 30_000 + "] }}",
        "{{ x" + "|d" * 30_000 + " }}",
        "{#" + "x" * 300_000,
        "{{ '" + "x" * 300_000,
    ],
    ids=lambda text: text[:20],
)
def test_no_template_takes_long_to_compile(tmp_path: Path, text: str) -> None:
    inventory = dump(
        {"all": {"vars": {"ansible_user": text}, "hosts": {f"gpu{number}": None for number in range(100)}}}
    )
    assert not bounded(lambda: parse_inventory(inventory)).rstrip().endswith(":")
    (tmp_path / "ray_head.sh.j2").write_text(text, encoding="utf-8")
    bounded(lambda: load_templates(tmp_path).render("ray_head.sh.j2", **CONTEXT))


def test_hosts_of_a_file_share_one_budget() -> None:
    hosts = {
        f"gpu{number}": {"ansible_user": f"{{{{ ('a ' * 90000) | wordcount ~ {number} }}}}"} for number in range(3000)
    }
    text = dump({"all": {"hosts": hosts}})
    began = time.process_time()
    with pytest.raises(InputError, match="takes too long"):
        parse_inventory(text)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("text", SCRIPTS)
def test_no_template_includes_itself_for_long(tmp_path: Path, text: str) -> None:
    (tmp_path / "ray_head.sh.j2").write_text(text, encoding="utf-8")
    bounded(lambda: load_templates(tmp_path).render("ray_head.sh.j2", **CONTEXT, stopped="x" * 1000))


@pytest.mark.parametrize("call", ["path.unlink()", "path.write_text('x')", "path.read_text()", "path.open('w')"])
def test_of_what_a_template_is_given_it_calls_no_method(tmp_path: Path, call: str) -> None:
    (tmp_path / "ray_head.sh.j2").write_text("{{ " + call + " }}", encoding="utf-8")
    problem = bounded(lambda: load_templates(tmp_path).render("ray_head.sh.j2", **CONTEXT))
    assert "cannot be called in a template" in problem


def test_one_hostile_template_does_not_cost_its_share_for_each_host() -> None:
    text = "{% for a in range(30000) %}{% endfor %}{{ inventory_hostname }}"
    inventory = dump(
        {"all": {"vars": {"ansible_user": text}, "hosts": {f"gpu{number}": None for number in range(1000)}}}
    )
    assert "takes too long" in bounded(lambda: parse_inventory(inventory))


def test_references_that_double_are_bounded() -> None:
    doubling = {f"v{number}": f"{{{{ v{number + 1} }}}}{{{{ v{number + 1} }}}}" for number in range(40)}
    inventory = dump({"all": {"vars": {"ansible_user": "{{ v0 }}", **doubling, "v40": "x"}, "hosts": {"gpu01": None}}})
    bounded(lambda: parse_inventory(inventory))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("x | default(4294967296)", "4294967296"),
        ("groups['all'] | length", "30"),
        ("groups['all'] | join(',') | length", "169"),
        ("(8000 + 1) ~ ''", "8001"),
        ("'%s:%d' % ('a', 4294967296)", "a:4294967296"),
        ("'{}-{:03}'.format('a', 7)", "a-007"),
        ("'a-b'.split('-')[1].upper()", "B"),
        ("{'a': 1}.get('b', 29500)", "29500"),
        ("hostvars['gpu1'].get('n', 0) + 1", "8"),
        ("range(3) | map('string') | join('-')", "0-1-2"),
        ("[3, 1, 2] | sort | first", "1"),
        ("'x' | center(9) | trim", "x"),
        ("dict(a=4294967296)['a']", "4294967296"),
        ("'{{ n }}' | replace('n', 'm') | length", "7"),
        ("[1, 2] | sum", "3"),
        ("'a' in ['a'] and 3 > 2 and n is defined", "True"),
        ("(n * 1024 * 1024 * 1024) // 2 ** 20", "7168"),
    ],
)
def test_ordinary_expressions_are_as_in_jinja(expression: str, value: str) -> None:
    hosts: dict[str, object] = {f"gpu{number}": None for number in range(30)}
    text = dump({"all": {"vars": {"n": 7, "env": {"A": "{{ " + expression + " }}"}}, "hosts": hosts}})
    assert parse_inventory(text)["gpu1"].env["A"] in (value, value.lower())


def test_expressions_about_all_of_3000_hosts_are_within_bounds() -> None:
    hosts: dict[str, object] = {f"gpu{number}": None for number in range(3000)}
    values = {"N": "{{ groups['all'] | length }}", "L": "{{ groups['all'] | join(',') | length }}"}
    env = parse_inventory(dump({"all": {"vars": {"env": values}, "hosts": hosts}}))["gpu1"].env
    assert (env["N"], env["L"]) == ("3000", "22889")


def test_packaged_scripts_are_the_same_with_bounds() -> None:
    """All scripts of every example, through the environment that bounds and the one that does not."""
    plain = load_templates()
    bounds = Templates(plain.sources, {"nosuch.j2": "nosuch.j2"})
    assert isinstance(bounds._environment, BoundedEnvironment)
    inventory = parse_inventory(dump({"hosts": [{"name": "gpu[1:4]", "gpus": 8}], "groups": {"head": ["gpu1"]}}))
    for path in EXAMPLES:
        scripts = []
        for templates in (plain, bounds):
            spec = load_spec(path, environ={})
            scripts.append(plan(Inputs(inventory, spec, {}, "20261101T120000Z-abc123", templates)).scripts)
        assert scripts[0] == scripts[1]
        assert scripts[0]
