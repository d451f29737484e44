"""How templates are compiled, so that they await what is there for later, and know what is captured.

A block that is deferred leaves a placeholder, which has to arrive in the page as it is. So whatever may get
hold of its text says so while it is at work: `{% filter %}` and `{% set %}` blocks, the tags of other
extensions, imports, and each macro whose text is not put into the page where it is called.

Rule: only names that come from the context can be a `Later`; all others are compiled as by Jinja2. A call
whose text goes into the page is compiled as by Jinja2, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import isawaitable
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.idtracking import VAR_LOAD_ALIAS, VAR_LOAD_RESOLVE
from jinja2.runtime import BlockReference, Context, LoopContext, Macro

from .later import Later
from .rendering import rendering_of

# Filters that leave what is safe already as it is.
_LEAVE_IT = frozenset(("e", "escape", "safe"))
_CAPTURED = "streamkit_captured"


class _Capturing(CodeGenerator):
    """Jinja2's compiler, with a word from whatever captures text."""

    _whole: str | None = None  # the names of the functions, in the compiled module
    _count: str | None = None

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        self._whole, self._count = self.temporary_identifier(), self.temporary_identifier()
        for function, name in ((whole, self._whole), (count_captures, self._count)):
            self.writeline(f"from {__name__} import {function.__name__} as {name}")
        into_page = {id(call) for call in _calls_into_page(node)}
        for call in node.find_all(nodes.Call):
            if id(call) not in into_page and not isinstance(call.node, nodes.ExtensionAttribute):
                setattr(call.node, _CAPTURED, True)
        super().visit_Template(node, frame)

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        if not getattr(node, _CAPTURED, False):
            return super().visit(node, *args, **kwargs)
        self.write(f"{self._whole}(context, ")
        super().visit(node, *args, **kwargs)
        self.write(")")
        return None

    def _visit_capturing(self, visit: Callable[..., None], node: nodes.Node, frame: Frame) -> None:
        self.writeline(f"{self._count}(context, 1)")
        visit(node, frame)
        self.writeline(f"{self._count}(context, -1)")

    def visit_FilterBlock(self, node: nodes.FilterBlock, frame: Frame) -> None:
        self._visit_capturing(super().visit_FilterBlock, node, frame)

    def visit_AssignBlock(self, node: nodes.AssignBlock, frame: Frame) -> None:
        self._visit_capturing(super().visit_AssignBlock, node, frame)

    def visit_Import(self, node: nodes.Import, frame: Frame) -> None:
        self._visit_capturing(super().visit_Import, node, frame)

    def visit_FromImport(self, node: nodes.FromImport, frame: Frame) -> None:
        self._visit_capturing(super().visit_FromImport, node, frame)

    def visit_CallBlock(self, node: nodes.CallBlock, frame: Frame) -> None:
        if isinstance(node.call.node, nodes.ExtensionAttribute):
            self._visit_capturing(super().visit_CallBlock, node, frame)
        else:
            super().visit_CallBlock(node, frame)


class _Awaiting(_Capturing):
    """The same, with an `await` for each name of the context."""

    _later: str | None = None  # the name of the class, in the compiled module

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:
        self._later = self.temporary_identifier()
        self.writeline(f"from {Later.__module__} import {Later.__name__} as {self._later}")
        super().visit_Template(node, frame)

    def visit_Name(self, node: nodes.Name, frame: Frame) -> None:
        reference = frame.symbols.ref(node.name)
        load = frame.symbols.find_load(reference) if node.ctx == "load" else None
        if load is None or load[0] not in (VAR_LOAD_RESOLVE, VAR_LOAD_ALIAS):
            super().visit_Name(node, frame)
            return
        # `__class__` of a lazy object would ask for what it stands for.
        self.write(f"(await {reference} if type({reference}) is {self._later} else ")
        super().visit_Name(node, frame)
        self.write(")")


def streaming(generator: type[CodeGenerator], *, is_async: bool) -> type[CodeGenerator]:
    """A compiler that does what this one does, and this file's part."""
    ours = _Awaiting if is_async else _Capturing
    if issubclass(generator, ours):
        return generator
    if generator is CodeGenerator:
        return ours
    return type(f"{ours.__name__}{generator.__name__}", (ours, generator), {})


def _calls_into_page(node: nodes.Template) -> Iterator[nodes.Call]:
    """The calls whose text goes into the page as it is, or into the macro around them."""
    expressions: list[nodes.Expr]
    for found in node.find_all((nodes.Output, nodes.CallBlock)):
        expressions = [found.call] if isinstance(found, nodes.CallBlock) else [*found.nodes]  # type: ignore[attr-defined]
        while expressions:
            expression, *expressions = expressions
            if isinstance(expression, nodes.Call):
                yield expression
            elif isinstance(expression, nodes.CondExpr):
                expressions += [
                    branch for branch in (expression.expr1, expression.expr2) if branch is not None
                ]
            elif isinstance(expression, nodes.Filter) and expression.name in _LEAVE_IT:
                expressions += [] if expression.node is None else [expression.node]


# ---------------------------------------------------------------- while a template is rendered


def count_captures(context: Context, change: int) -> None:
    """Something begins to capture the page's text, or ends."""
    rendering = rendering_of(context)
    if rendering is not None:
        rendering.captures += change


def whole(context: Context, called: Any) -> Any:
    """What is called, to be called for a text that others than the page get hold of."""
    if not isinstance(called, (Macro, BlockReference, LoopContext)):
        return called
    rendering = rendering_of(context)
    if rendering is None or not rendering.defers:
        return called
    is_async = context.environment.is_async

    def call(*args: Any, **kwargs: Any) -> Any:
        rendering.captures += 1
        try:
            return context.call(called, *args, **kwargs)
        finally:
            rendering.captures -= 1

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        rendering.captures += 1
        try:
            text: Any = context.call(called, *args, **kwargs)
            return await text if isawaitable(text) else text
        finally:
            rendering.captures -= 1

    return call_async if is_async else call
