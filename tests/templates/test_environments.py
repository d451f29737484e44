"""Environments of other kinds: sandboxed, strict, with a cache of compiled templates, precompiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

import streamkit
from streamkit.testing import Client

from .test_deferred import filled

SOURCES = {
    "layout.html": "<h>{% flush %}{{ title }}{% content %}</h>",
    "page.html": "{% from 'macros.html' import show with context %}"
    "{% for x in xs %}{% defer %}{{ show(x) }}{{ loop.index }}{% placeholder %}w{% enddefer %}{% endfor %}"
    "{% slots %}{% defer %}s{% enddefer %}{% endslots %}",
    "macros.html": "{% macro show(x) %}[{{ x }}{{ title }}]{% endmacro %}",
}


class Compiler(jinja2.environment.CodeGenerator):
    pass


def sandboxed(path: Path, **more: Any) -> Any:
    return ImmutableSandboxedEnvironment(loader=jinja2.DictLoader(SOURCES), **more)


def strict(path: Path, **more: Any) -> Any:
    return jinja2.Environment(loader=jinja2.DictLoader(SOURCES), undefined=jinja2.StrictUndefined, **more)


def cached(path: Path, **more: Any) -> Any:
    cache = jinja2.FileSystemBytecodeCache(str(path))
    return jinja2.Environment(loader=jinja2.DictLoader(SOURCES), bytecode_cache=cache, **more)


def precompiled(path: Path, **more: Any) -> Any:
    compiling = jinja2.Environment(
        loader=jinja2.DictLoader(SOURCES), extensions=["streamkit.templates.Streaming"], **more
    )
    compiling.compile_templates(path / "compiled", zip=None)
    return jinja2.Environment(loader=jinja2.ModuleLoader(path / "compiled"), **more)


def translated(path: Path, **more: Any) -> Any:
    made = jinja2.Environment(
        loader=jinja2.DictLoader(SOURCES),
        extensions=["jinja2.ext.i18n", "jinja2.ext.do", "streamkit.templates.Streaming"],
        **more,
    )
    made.install_null_translations(newstyle=True)  # type: ignore[attr-defined]
    return made


def with_a_compiler_of_its_own(path: Path, **more: Any) -> Any:
    made = jinja2.Environment(loader=jinja2.DictLoader(SOURCES), **more)
    made.code_generator_class = Compiler
    return made


def overlaid(path: Path, **more: Any) -> Any:
    return jinja2.Environment(loader=jinja2.DictLoader(SOURCES), **more).overlay(trim_blocks=True)


KINDS = [sandboxed, strict, cached, precompiled, translated, with_a_compiler_of_its_own, overlaid]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_tags_work_in(kind: Any, is_async: bool, tmp_path: Path):
    for _ in range(2):  # the second time from the cache, where there is one
        templates = streamkit.Templates(kind(tmp_path, autoescape=True, enable_async=is_async))
        response = templates.chunked("page.html", layout="layout.html", xs=["<", "b"], title="T")
        with Client(response, kind="wsgi", timeout=20) as client, client.get("/") as connection:
            chunks = [chunk.decode() for chunk in iter(connection.next_chunk, None)]
        assert chunks[0] == "<h>"
        page = filled("".join(chunks))
        assert page.startswith("<h>T[&lt;T]1[bT]2<div><template shadowrootmode=")
        assert page.endswith(">s</span></div></h>")


def test_a_template_compiled_before_its_environment_was_given_here_does_not_show_an_awaitable():
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page.html": "{{ value }}"}), enable_async=True, autoescape=True
    )
    environment.get_template("page.html")

    async def value() -> str:
        return "v"

    response = streamkit.Templates(environment).chunked("page.html", value=value())
    with pytest.raises(RuntimeError, match="compiled before"):
        with Client(response, kind="wsgi", timeout=20) as client, client.get("/") as connection:
            connection.next_chunk()
