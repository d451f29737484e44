"""The tags `{% flush %}`, `{% content %}`, `{% defer %}` and `{% slots %}`, as a Jinja2 extension.

    Environment(extensions=["streamkit.templates.Streaming"])

Rule: a tag asks the rendering that its template belongs to, and where there is none (a plain
`template.render()`), it gives what a page without streaming would have in its place.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from copy import copy
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, nodes
from jinja2.compiler import find_undeclared
from jinja2.exceptions import TemplateRuntimeError
from jinja2.ext import Extension
from jinja2.nativetypes import NativeEnvironment
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.utils import Cycler, Joiner, Namespace
from markupsafe import Markup

from ..errors import ProducerError
from .blocks import Slots
from .compiling import streaming
from .rendering import Rendering, rendering_now, rendering_of

if TYPE_CHECKING:
    from jinja2.parser import Parser

# What a macro knows by these names is its own; a deferred body within it is a macro too.
_SPECIAL = ("caller", "kwargs", "varargs")

# What stands in these goes into the page as it is. All other tags (`filter`, `set`, those of other
# extensions, which may cache it) get hold of the text, and must not find a placeholder in it. What is
# captured by way of a call or an include is told while it is rendered; see `compiling`.
_PASS_ON = frozenset(("autoescape", "block", "call", "defer", "for", "if", "macro", "slots", "with"))


def add_to(environment: Any) -> Environment:
    """The environment with the tags; `ProducerError` if it is none that renders text."""
    if not isinstance(environment, Environment):
        found = next((name for name in ("jinja_env", "env") if hasattr(environment, name)), None)
        instead = f": pass its `.{found}`" if found else ""
        raise ProducerError(f"wanted a jinja2.Environment, got {environment!r}{instead}")
    if isinstance(environment, NativeEnvironment):
        raise ProducerError(f"wanted an environment that renders text, got the native {environment!r}")
    if not any(isinstance(extension, Streaming) for extension in environment.extensions.values()):
        environment.add_extension(Streaming)
    generator = environment.code_generator_class
    environment.code_generator_class = streaming(generator, is_async=environment.is_async)
    return environment


class Streaming(Extension):
    """`{% flush %}`, `{% content %}`, `{% defer %}` and `{% slots %}`; see `streamkit.templates`."""

    tags = {"flush", "content", "defer", "slots"}  # noqa: RUF012  # as Jinja2 declares it

    # -- reading

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """What a tag becomes."""
        token = next(parser.stream)
        parse: Callable[[Parser, int], nodes.Node | list[nodes.Node]] = getattr(self, f"_parse_{token.value}")
        return parse(parser, token.lineno)

    def _parse_flush(self, parser: Parser, lineno: int) -> nodes.Node:
        return self._statement("_flush", lineno)

    def _parse_content(self, parser: Parser, lineno: int) -> list[nodes.Node]:
        if "defer" in parser._tag_stack:
            parser.fail("{% content %} cannot stand in {% defer %}: it is the page, which goes on", lineno)
        content = self.call_method("_content", [nodes.ContextReference()], lineno=lineno)
        return [
            self._statement("_before_content", lineno, nodes.ContextReference()),
            nodes.Include(content, True, False, lineno=lineno),
            self._statement("_flush", lineno),
        ]

    def _parse_defer(self, parser: Parser, lineno: int) -> list[nodes.Node]:
        is_captured = not _PASS_ON.issuperset(parser._tag_stack)
        body = parser.parse_statements(("name:placeholder", "name:enddefer"))
        self._refuse_jumps(parser, body, "defer")
        waiting: list[nodes.Node] = []
        if next(parser.stream).value == "placeholder":
            waiting = parser.parse_statements(("name:enddefer",), drop_needle=True)
        unique = parser.free_identifier().name
        made: list[nodes.Node] = []
        macros: list[nodes.Expr] = [nodes.ContextReference()]
        for part, of in (("body", body), ("waiting", waiting)):
            made.extend(_special_names_kept(of, f"_{unique}_{part}", lineno))
            name = f"_{unique}_{part}"
            made.append(nodes.Macro(name, [], [], of, lineno=lineno))
            macros.append(nodes.Name(name, "load", lineno=lineno))
        macros.append(nodes.Const(is_captured))
        made.append(nodes.Output([self.call_method("_defer", macros, lineno=lineno)], lineno=lineno))
        return made

    def _parse_slots(self, parser: Parser, lineno: int) -> list[nodes.Node]:
        is_captured = not _PASS_ON.issuperset(parser._tag_stack)
        body = parser.parse_statements(("name:endslots",), drop_needle=True)
        self._refuse_jumps(parser, body, "slots")
        block = f"_{parser.free_identifier().name}_block"
        blocks = self.call_method("_blocks", [nodes.ContextReference()], lineno=lineno)
        shown = nodes.Output([nodes.Name(block, "load", lineno=lineno)], lineno=lineno)
        return [
            self._output("_open_slots", lineno, nodes.Const(is_captured)),
            *body,
            self._output("_end_slots", lineno),
            nodes.For(
                nodes.Name(block, "store", lineno=lineno),
                blocks,
                [shown, self._statement("_flush", lineno)],
                [],
                None,
                False,
                lineno=lineno,
            ),
            self._output("_close_slots", lineno),
        ]

    @staticmethod
    def _refuse_jumps(parser: Parser, body: list[nodes.Node], tag: str) -> None:
        """`{% break %}` and `{% continue %}` out of what has to come to its end."""
        jump = next(_jumps(body), None)
        if jump is not None:
            word = type(jump).__name__.lower()
            parser.fail(f"{{% {word} %}} cannot leave a {{% {tag} %}} that stands in its loop", jump.lineno)

    def _statement(self, method: str, lineno: int, *arguments: nodes.Expr) -> nodes.Node:
        return nodes.ExprStmt(self.call_method(method, list(arguments), lineno=lineno), lineno=lineno)

    def _output(self, method: str, lineno: int, *arguments: nodes.Expr) -> nodes.Node:
        call = self.call_method(method, [nodes.ContextReference(), *arguments], lineno=lineno)
        return nodes.Output([call], lineno=lineno)

    # -- rendering; what these return is awaited in an asynchronous environment

    def _flush(self) -> Any:
        rendering = rendering_now.get()
        return None if rendering is None else rendering.flush()

    def _before_content(self, context: Context) -> Any:
        rendering = rendering_of(context)
        return None if rendering is None else rendering.before_content(context)

    def _content(self, context: Context) -> Any:
        rendering = rendering_of(context)
        content = None if rendering is None else rendering.take_content()
        return self.environment.from_string("") if content is None else content

    def _defer(self, context: Context, body: Macro, waiting: Macro, is_captured: bool) -> Any:
        rendering = rendering_of(context)
        if rendering is None or not rendering.defers or is_captured or rendering.captures:
            return _marked_async(body) if self.environment.is_async else Markup(body())
        later = as_now(body, context)
        if self.environment.is_async:
            return _deferred_async(rendering, later, waiting)
        key, region = rendering.defer(lambda: Markup(later()))
        return Markup(region.placeholder(key, waiting()))

    def _open_slots(self, context: Context, is_captured: bool) -> Markup:
        rendering = rendering_of(context)
        opened = rendering is not None and rendering.open_slots(is_captured)
        return Markup(Slots.OPEN if opened else "")

    def _end_slots(self, context: Context) -> Markup:
        rendering, region = rendering_of(context), _region_of(context)
        if rendering is None or region is None:
            return Markup("")
        rendering.ending = region
        return Markup(Slots.BETWEEN)

    def _blocks(self, context: Context) -> Any:
        rendering = rendering_of(context)
        # Beside the blocks of a child, where nothing is shown, this is called and `_end_slots` is not.
        if rendering is None or rendering.ending is None:
            return ()
        region, rendering.ending = rendering.ending, None
        return rendering.blocks_of_async(region) if self.environment.is_async else rendering.blocks_of(region)

    def _close_slots(self, context: Context) -> Markup:
        rendering = rendering_of(context)
        closed = rendering is not None and rendering.close_slots()
        return Markup(Slots.CLOSE if closed else "")


def _region_of(context: Context) -> Slots | None:
    """The region that the innermost `{% slots %}` has opened, if it has."""
    rendering = rendering_of(context)
    return None if rendering is None else rendering.slots[-1]


async def _marked_async(body: Any) -> Markup:
    return Markup(await body())


async def _deferred_async(rendering: Rendering, later: Any, waiting: Any) -> Markup:
    key, region = rendering.defer(lambda: _marked_async(later))
    return Markup(region.placeholder(key, await waiting()))


# ---------------------------------------------------------------- a body for later


def _special_names_kept(body: list[nodes.Node], unique: str, lineno: int) -> list[nodes.Node]:
    """Have a body that becomes a macro see the `caller` (and so on) of the macro that it stands in."""
    kept: list[nodes.Node] = []
    for name in sorted(find_undeclared(body, _SPECIAL)):
        alias = f"{unique}_{name}"
        kept.append(
            nodes.Assign(
                nodes.Name(alias, "store", lineno=lineno),
                nodes.Name(name, "load", lineno=lineno),
                lineno=lineno,
            )
        )
        for node in body:
            _rename(node, name, alias)
    return kept


def _rename(node: nodes.Node, name: str, alias: str) -> None:
    if isinstance(node, (nodes.Macro, nodes.CallBlock)):
        return  # has its own
    if isinstance(node, nodes.Name) and node.name == name:
        node.name = alias
    for child in node.iter_child_nodes():
        _rename(child, name, alias)


def _jumps(body: list[nodes.Node]) -> Iterator[nodes.Node]:
    """What leaves a loop that begins outside of this body."""
    for node in body:
        if isinstance(node, (nodes.Break, nodes.Continue)):
            yield node
        elif isinstance(node, nodes.For):
            yield from _jumps(node.else_)
        else:
            yield from _jumps(list(node.iter_child_nodes()))


def as_now(macro: Macro, context: Context) -> Macro:
    """A macro that will see the variables around it as they are now, whatever loops and tags do meanwhile.

    Compiled templates keep variables in Python's own closures, which are shared with the page that goes on.
    """
    return _Snapshot(context).of_macro(macro)


class _Snapshot:
    """The variables of a moment, each taken once."""

    def __init__(self, context: Context) -> None:
        derived = context.derived()
        derived.eval_ctx = copy(context.eval_ctx)
        self._context = derived
        self._cells: dict[int, CellType] = {}
        self._macros: dict[int, Macro] = {}
        self._counters: dict[int, Any] = {}
        derived.parent = {name: self._counter(value) for name, value in derived.parent.items()}

    def of_macro(self, macro: Macro) -> Macro:
        taken = self._macros.get(id(macro))
        if taken is None:
            taken = self._macros[id(macro)] = copy(macro)
            function = macro._func
            if isinstance(function, FunctionType) and function.__closure__:
                taken._func = self._function(function)
        return taken

    def _function(self, function: FunctionType) -> FunctionType:
        names, cells = function.__code__.co_freevars, function.__closure__ or ()
        closure = tuple(self._cell(name, cell) for name, cell in zip(names, cells, strict=True))
        made = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, closure
        )
        made.__kwdefaults__ = function.__kwdefaults__
        return made

    def _cell(self, name: str, cell: CellType) -> CellType:
        taken = self._cells.get(id(cell))
        if taken is None:
            taken = self._cells[id(cell)] = CellType()
            try:
                value = cell.cell_contents
            except ValueError:  # not set yet
                return taken
            taken.cell_contents = self._value(name, value)
        return taken

    def _value(self, name: str, value: Any) -> Any:
        if name == "context":
            return self._context
        if name == "resolve":
            return self._context.resolve_or_missing
        kind = type(value)  # `isinstance` would have a lazy object ask, here and now, for what it stands for
        if issubclass(kind, Macro):
            return self.of_macro(value)
        if issubclass(kind, LoopContext):
            taken = _loop_as_now(value)
            recurse = taken._recurse
            if isinstance(recurse, FunctionType) and recurse.__closure__:
                taken._recurse = self._function(recurse)
            return taken
        return self._counter(value)

    def _counter(self, value: Any) -> Any:
        """What templates keep a changing value in, as it is now."""
        if type(value) not in _COUNTERS:
            return value
        taken = self._counters.get(id(value))
        if taken is None:
            taken = self._counters[id(value)] = _COUNTERS[type(value)](value)
        return taken


_COUNTERS: dict[type, Callable[[Any], Any]] = {
    Cycler: copy,
    Joiner: copy,
    Namespace: lambda namespace: Namespace(namespace._Namespace__attrs),
}


def _loop_as_now(loop: LoopContext) -> LoopContext:
    """The `loop` of this turn. What comes next in it is known where the loop is over a collection.

    The rest of any other iterable is the page's: what a block took of it, to count it, the page would miss.
    """
    taken = copy(loop)
    iterable, rest = loop._iterable, loop._iterator
    rest = getattr(rest, "_iterator", rest)  # Jinja2's own, in an asynchronous environment, stands around it
    if isinstance(iterable, (list, tuple)):
        taken._iterator = loop._to_iterator(iterable[loop.index0 + 1 :])
        taken._after = type(loop)._after
    elif type(rest) in _COPIED:
        taken._iterator = loop._to_iterator(copy(rest))
    else:
        taken._iterator = _Unknown()
    return taken


# The iterators whose copies go their own ways.
_COPIED = frozenset(
    type(iterator)
    for iterator in (
        *map(iter, ([], (), "", "é", b"", range(0), {}, {}.items(), {}.values(), set())),
        *map(iter, (deque(), OrderedDict())),
        reversed([]),
    )
)


class _Unknown:
    """The rest of an iterable that belongs to the page."""

    def __iter__(self) -> _Unknown:
        return self

    def __next__(self) -> Any:
        raise TemplateRuntimeError(
            "a deferred block does not know what follows in its loop: loop over a list, or ask before it"
        )

    __aiter__ = __iter__

    async def __anext__(self) -> Any:
        return self.__next__()
