"""Jinja for templates that users write: no Python of theirs runs, and no template takes long or grows large.

All that a template does is paid from a `Budget`, before it is done where it may be large. Values are measured when they
are made, so that what is done with them is bounded too. A timer would not do: it does not end a long call of C.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import BuiltinMethodType
from typing import Any

import jinja2
from jinja2 import nodes, pass_context
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner
from jinja2.visitor import NodeTransformer

WRONG = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, SyntaxError,
         TypeError, ValueError, jinja2.TemplateError)  # fmt: skip
"""What a template can raise: Python's own errors in its expressions are not wrapped."""
LARGEST = 256 << 10
"""Characters of a text, or entries of a list at any depth. All hosts of a group, as a list, are one value."""
LARGEST_BITS = 1 << 14
MANY = 50
STEP = 20
"""What each operation costs beside the size of its values."""
SHARE, RESERVE = 20_000, 8_000_000
"""What each script or host adds to a budget, and what it begins with: 400,000 operations, 1 s."""

_budget: ContextVar[Budget | None] = ContextVar("budget", default=None)
_MAPPING_METHODS = ("get", "items", "keys", "values")
_NO_LENGTHS = {
    *("abs", "count", "d", "default", "filesizeformat", "first", "float", "int", "items", "last", "length", "list"),
    *("lower", "map", "max", "min", "reject", "rejectattr", "select", "selectattr", "sort", "string", "sum", "trim"),
    *("unique", "upper"),
}
"""Filters whose numbers are no lengths: `default(4294967296)`."""
_SLOW = ("pprint", "title", "urlize", "wordwrap")


class TooMuchError(jinja2.TemplateRuntimeError):
    """A template does too much, or makes too large a value."""


class Budget:
    """What templates may still do. `share` is what each script or host adds to it."""

    def __init__(self, share: int = SHARE) -> None:
        self.left = RESERVE
        self.added = share
        self.sizes: dict[int, tuple[object, int]] = {}
        """Sizes of long lists and mappings by their ids; no template changes one."""

    @contextmanager
    def share(self) -> Iterator[None]:
        """Let the templates of one script or host, in the block, use this budget."""
        self.left += self.added
        token = _budget.set(self)
        try:
            yield
        finally:
            _budget.reset(token)


def spend(units: int) -> None:
    """Pay for an operation. Raises TooMuchError where the budget is exhausted."""
    budget = _budget.get()
    if budget is not None:
        budget.left -= STEP + units
        if budget.left < 0:
            raise TooMuchError("takes too long, or writes too much")


def measured(value: Any) -> Any:
    """Return a value and pay for measuring it. Raises TooMuchError where it is larger than any may be."""
    spend(_size(value) // 16)
    return value


def written(value: Any) -> Any:
    """Return a value and pay for a copy of it. Raises TooMuchError where it is larger than any may be."""
    spend(_size(value))
    return value


def _size(value: Any) -> int:
    """Return the characters and entries of a value, at any depth; pay for counting entries."""
    if isinstance(value, str | bytes | range):
        return _allowed(len(value) + 1)
    if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
        raise TooMuchError("makes a number of too many digits")
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return 1
    budget = _budget.get()
    if budget is None or id(value) not in budget.sizes:
        size = _count(value)
        if budget is None or len(value) < MANY:
            return size
        budget.sizes[id(value)] = value, size
    return budget.sizes[id(value)][1]


def _count(value: Any) -> int:
    size, entries, waiting = 0, 0, [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str | bytes | range):
            size += len(part)
        elif isinstance(part, dict):
            waiting += part.keys()
            waiting += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            waiting += part
        entries += 1
        _allowed(size + entries + len(waiting))
    spend(4 * entries)
    return size + entries


def _allowed(size: int) -> int:
    if size > LARGEST:
        raise TooMuchError("makes too large a value")
    return size


def _pay_product(values: list[Any], lengths: bool, price: float = 1 / 16) -> None:
    """Pay for an operation that may write each value for each part of the others, and as often as a number says."""
    product = 1
    for value in values:
        length = abs(value) if lengths and isinstance(value, int) else _size(value)
        product *= length + 1
        if product > RESERVE:
            raise TooMuchError("makes too large a value")
    spend(int(product * price))


def _pay_format(text: str, values: list[Any]) -> None:
    """Pay for `%` and `format`, whose texts hold lengths: `%1000000000d`."""
    if re.search(r"\d{6}", text) or re.search(r"\{[^{}]{0,1000}\{", text):
        raise TooMuchError("has too large a width in a format, or one that is computed")
    largest = max(map(int, re.findall(r"\d+", text)), default=0)
    _pay_product([text, largest, *values], "*" in text)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja with the filters of Jinja and `filters`; of methods those of texts, numbers, lists and mappings."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self, filters: Mapping[str, Callable[..., Any]] = {}, **options: Any) -> None:
        options["finalize"] = _then(options.get("finalize"))
        super().__init__(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, **options)
        del self.globals["lipsum"]
        self.filters |= filters
        self.filters = {name: _bounded(name, function) for name, function in self.filters.items()}
        self.filters["_measured"] = pass_context(lambda _context, value: measured(value))
        self.filters["_written"] = pass_context(lambda _context, value: written(value))
        self.filters["_charge"] = pass_context(lambda _context, units: spend(units))

    def _generate(self, source: nodes.Template, *args: Any, **options: Any) -> str:
        _Metering().visit(source)
        source.set_environment(self)
        return super()._generate(source, *args, **options)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operator. Raises TooMuchError before it makes too large a value."""
        if operator == "%" and isinstance(left, str):
            _pay_format(left, list(right) if isinstance(right, tuple) else [right])
        elif operator == "*" and not (isinstance(left, int | float) and isinstance(right, int | float)):
            _pay_product([left, right], lengths=True)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _pay_product([left.bit_length(), right], lengths=True)
            if left.bit_length() * right > LARGEST_BITS:
                raise TooMuchError("makes a number of too many digits")
        else:
            spend(_size(left) + _size(right))
        return measured(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what a function returns. Raises SecurityError for one that templates may not call."""
        values = [*args, *kwargs.values()]
        owner = getattr(__obj, "__self__", None)
        formatted = getattr(getattr(__obj, "__wrapped__", None), "__self__", None)
        if isinstance(formatted, str):
            _pay_format(formatted, values)
        elif isinstance(owner, str) or (isinstance(owner, _PLAIN_TYPES) and isinstance(__obj, BuiltinMethodType)):
            _pay_product([owner if not isinstance(owner, int) else 1, *values], not isinstance(owner, dict))
        elif _is_callable(__obj, owner) or any(__obj is function for function in __self.globals.values()):
            measured(values)
        elif not isinstance(__obj, Undefined):
            raise jinja2.exceptions.SecurityError(f"{_name(__obj)} cannot be called in a template")
        return measured(_listed(super().call(__context, __obj, *args, **kwargs)))


_PLAIN_TYPES = (bytes, int, float, list, tuple, dict, range)


def _is_callable(function: Any, owner: Any) -> bool:
    if isinstance(owner, Mapping):
        return function.__name__ in _MAPPING_METHODS
    return isinstance(function, Macro | LoopContext | BlockReference | Joiner) or isinstance(
        owner, Cycler | LoopContext
    )


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _listed(value: Any) -> Any:
    """Return what a generator yields, as a list."""
    if not isinstance(value, Iterator) or isinstance(value, LoopContext):
        return value
    items = []
    for item in value:
        items.append(measured(item))
    return items


def _then(finalize: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    return written if finalize is None else lambda value: finalize(written(value))


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that pays for what it does, and that is not done while a template is compiled."""
    passed = getattr(function, "jinja_pass_arg", None)

    @functools.wraps(function)
    def bounded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        values = [*args, *kwargs.values()]
        if name == "format":
            _pay_format(str(measured(value)), values)
        elif name == "sum" and isinstance(value, list) and not all(isinstance(start, int | float) for start in values):
            _pay_product([len(value), value], lengths=True)  # it copies what it has for each of them
        else:
            parts = [value if not isinstance(value, int) else 1, *values]
            _pay_product(parts, name not in _NO_LENGTHS, price=4 if name in _SLOW else 1 / 16)
        first = {None: (), "context": (context,), "environment": (context.environment,)}
        own = first.get(passed and passed.name, (context.eval_ctx,))
        return measured(_listed(function(*own, value, *args, **kwargs)))

    return pass_context(bounded)


class _Metering(NodeTransformer):
    """Make a template pay for what is no filter and no call: loops, macros, literals, `~`, comparisons, slices."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if isinstance(node.test, nodes.Expr):
            node.test = _paid(node.test)
        return self._body(node)

    def _body(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        cost = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.body.insert(0, nodes.ExprStmt(_paid(nodes.Const(cost), "_charge"), lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_Block = visit_Template = _body

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_paid(part, "_written") for part in node.nodes]
        return _paid(node)

    def _literal(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return _paid(node) if getattr(node, "ctx", "load") == "load" else node

    visit_List = visit_Tuple = visit_Dict = _literal

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _paid(node.expr)
        for operand in node.ops:
            operand.expr = _paid(operand.expr)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self.generic_visit(node)
        if node.name not in ("defined", "undefined", "none"):
            node.node, node.args = _paid(node.node), [_paid(argument) for argument in node.args]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _paid(node.node)
        return node


def _paid(node: nodes.Expr, name: str = "_measured") -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
