"""How an asynchronous template is compiled, so that it awaits what its context has for later.

Rule: only names that come from the context can be a `Later`; all others are compiled as by Jinja2.
"""

from __future__ import annotations

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.idtracking import VAR_LOAD_ALIAS, VAR_LOAD_RESOLVE

from .later import Later


class _Awaiting(CodeGenerator):
    """Jinja2's compiler, with an `await` for each name of the context."""

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
        self.write(f"(await {reference} if {reference}.__class__ is {self._later} else ")
        super().visit_Name(node, frame)
        self.write(")")


def awaiting(generator: type[CodeGenerator]) -> type[CodeGenerator]:
    """A compiler that does what this one does, and awaits."""
    if issubclass(generator, _Awaiting):
        return generator
    if generator is CodeGenerator:
        return _Awaiting
    return type(f"_Awaiting{generator.__name__}", (_Awaiting, generator), {})
