"""Jinja for templates that users write: no Python of theirs runs, and no template takes long or grows large.

All that a template does is paid from a `Budget`, before it is done where it may be large. Values are measured when they
are made, so that what is done with them is bounded too. A timer would not do: it does not end a long call of C.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinMethodType
from typing import Any

import jinja2
from jinja2 import nodes, pass_context
from jinja2.lexer import Token, TokenStream
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner
from jinja2.visitor import NodeTransformer

from flagscale_deploy.support.template_budget import (
    LARGEST_BITS,
    TooMuchError,
    measured,
    pay_format,
    pay_product,
    size_of,
    spend,
    written,
)

WRONG = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, SyntaxError,
         TypeError, ValueError, jinja2.TemplateError)  # fmt: skip
"""What a template can raise: Python's own errors in its expressions are not wrapped."""
LONGEST = 64 << 10
"""Characters of a template in an inventory; one of a script may be longer."""
MOST_TOKENS = 20_000
"""Names, operators and texts of a template: compiling them takes 0.3 s."""
TOKEN = 100
"""What compiling a token costs."""

_CODECS = ("utf-8", "utf8", "ascii", "latin-1", "latin1", "iso-8859-1")
"""Of Python's codecs those whose time grows with the text: `punycode` and `idna` take the square of it."""
_MAPPING_METHODS = ("get", "items", "keys", "values")
_NO_LENGTHS = {
    *("abs", "bool", "combine", "count", "d", "default", "filesizeformat", "first", "float", "int", "items", "last"),
    *("length", "list", "lower", "map", "mandatory", "max", "min", "reject", "rejectattr", "select", "selectattr"),
    *("sort", "string", "sum", "ternary", "trim", "unique", "upper"),
}
"""Filters whose numbers are no lengths: `default(4294967296)`."""
_SLOW = ("indent", "pprint", "striptags", "title", "urlencode", "wordcount", "wordwrap")
_OF_ENTRIES = {
    *("dictsort", "groupby", "map", "max", "min", "reject", "rejectattr", "select", "selectattr", "sort", "unique"),
}
"""Filters that call Python for each entry of a list, or character of a text."""
_SORTING = ("dictsort", "groupby", "sort")
"""Those of them that compare entries, too."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja with its filters less `urlize`, and `filters`; of methods those of texts, numbers, lists and mappings."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self, filters: Mapping[str, Callable[..., Any]] = {}, longest: int = LONGEST, **options: Any) -> None:
        options["finalize"] = _then(options.get("finalize"))
        super().__init__(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, **options)
        self._longest = longest
        del self.globals["lipsum"], self.filters["urlize"]
        self.filters |= filters
        self.filters = {name: _bounded(name, function) for name, function in self.filters.items()}
        self.filters["_measured"] = pass_context(lambda _context, value: measured(value))
        self.filters["_written"] = pass_context(lambda _context, value: written(value))
        self.filters["_charge"] = pass_context(lambda _context, units: spend(units))

    def _tokenize(self, source: str, name: str | None, *rest: Any) -> TokenStream:
        """Read what is to be compiled. Raises TooMuchError where that would take long."""
        if len(source) > self._longest:
            raise TooMuchError(f"is longer than {self._longest:,} characters")
        return TokenStream(_metered(super()._tokenize(source, name, *rest)), name, None)

    def _generate(self, source: nodes.Template, *args: Any, **options: Any) -> str:
        _Metering().visit(source)
        source.set_environment(self)
        return super()._generate(source, *args, **options)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return the result of an operator. Raises TooMuchError before it makes too large a value."""
        if operator == "%" and isinstance(left, str):
            pay_format(left, list(right) if isinstance(right, tuple) else [right])
        elif operator == "*" and not (isinstance(left, int | float) and isinstance(right, int | float)):
            pay_product([left, right], lengths=True)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            pay_product([left.bit_length(), right], lengths=True)
            if left.bit_length() * right > LARGEST_BITS:
                raise TooMuchError("makes a number of too many digits")
        else:
            spend(size_of(left) + size_of(right))
        return measured(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what a function returns. Raises SecurityError for one that templates may not call."""
        values = [*args, *kwargs.values()]
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes) and _name(__obj) in ("encode", "decode"):
            _refuse_codec(args[0] if args else kwargs.get("encoding", "utf-8"))
        formatted = getattr(getattr(__obj, "__wrapped__", None), "__self__", None)
        if isinstance(formatted, str):
            pay_format(formatted, values)
        elif isinstance(owner, str) or (isinstance(owner, _PLAIN_TYPES) and isinstance(__obj, BuiltinMethodType)):
            pay_product([owner if not isinstance(owner, int) else 1, *values], not isinstance(owner, dict))
        elif _is_callable(__obj, owner) or any(__obj is function for function in __self.globals.values()):
            measured(values)
        elif not isinstance(__obj, Undefined):
            raise jinja2.exceptions.SecurityError(f"{_name(__obj)} cannot be called in a template")
        return measured(_listed(super().call(__context, __obj, *args, **kwargs)))


def _refuse_codec(codec: Any) -> None:
    if str(codec).lower().replace("_", "-") not in _CODECS:
        raise jinja2.exceptions.SecurityError(f"codecs in a template are {', '.join(_CODECS)}")


def _metered(tokens: TokenStream) -> Iterator[Token]:
    for number, token in enumerate(tokens):
        if number == MOST_TOKENS:
            raise TooMuchError(f"has more than {MOST_TOKENS:,} names, operators and texts")
        spend(TOKEN)
        yield token


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
            pay_format(str(measured(value)), values)
        elif name == "sum" and isinstance(value, list) and not all(isinstance(start, int | float) for start in values):
            pay_product([len(value), value], lengths=True)  # it copies what it has for each of them
        else:
            if name in _OF_ENTRIES and isinstance(value, str | list | tuple | dict):
                price = 60 if isinstance(value, str) else 12 if name in _SORTING else 6
                spend(price * len(value))
            parts = [value if not isinstance(value, int) else 1, *values]
            pay_product(parts, name not in _NO_LENGTHS, price=10 if name in _SLOW else 1 / 16)
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
