"""Templates in Flask: the context of `render_template`, in pieces.

    kit = StreamKit(app)

    @app.get("/")
    def albums():
        return kit.templates.chunked("albums.html", albums=load())

Rule: flashed messages are taken out of the session before the head leaves, for after it nobody would
save that they were shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flask

from ..templates import TemplateResponse, Templates
from ._templates import may_ask_for, split

TAGS = "streamkit.templates.Streaming"


def add_tags(app: Any) -> None:
    """Let the app's templates have our tags, also where they are rendered by `render_template`."""
    if "jinja_env" in vars(app):  # it is made at its first use
        app.jinja_env.add_extension(TAGS)
        return
    extensions = list(app.jinja_options.get("extensions", ()))
    if TAGS not in extensions:
        app.jinja_options = {**app.jinja_options, "extensions": [*extensions, TAGS]}


class FlaskTemplates:
    """`streamkit.Templates` of the current app, with the context that `render_template` gives.

    Context processors, `g`, `request`, `session`, `url_for` and `get_flashed_messages` are there, and
    Flask's signals are sent.
    """

    def chunked(self, name: Any = None, **wishes_and_context: Any) -> TemplateResponse:
        """Describe a page that is sent while it is rendered; as `streamkit.Templates.chunked`."""
        return self._described("chunked", name, wishes_and_context)

    def view(self, name: Any = None, **wishes_and_context: Any) -> TemplateResponse:
        """Describe a page that is sent whole; as `streamkit.Templates.view`."""
        return self._described("view", name, wishes_and_context)

    def fragment(self, name: Any, **context: Any) -> Any:
        """Render a template whole, as `Markup`, to be written by an error hook; as `Templates.fragment`."""
        flask.current_app.update_template_context(context)
        return self._here.fragment(name, **context)

    no_chunk = staticmethod(Templates.no_chunk)

    @property
    def _here(self) -> Templates:
        app: Any = flask.current_app
        templates: Templates | None = app.extensions.get(TAGS)
        if templates is None:
            templates = app.extensions[TAGS] = Templates(app.jinja_env)
        return templates

    def _described(self, way: str, name: Any, given: dict[str, Any]) -> TemplateResponse:
        wishes, context = split(given)
        app: Any = flask.current_app._get_current_object()  # type: ignore[attr-defined]
        app.update_template_context(context)
        page: TemplateResponse = getattr(self._here, way)(name, context=context, **wishes)
        details = {"template": page.content or page.template, "context": context}
        flask.before_render_template.send(app, _async_wrapper=app.ensure_sync, **details)
        if flask.template_rendered.receivers:
            page.resources = (_telling(app, details), *page.resources)
        if _has_flashes() and may_ask_for(page, ("get_flashed_messages",)):
            flask.get_flashed_messages()  # they are kept for the request from here on
        return page


@contextmanager
def _telling(app: Any, details: dict[str, Any]) -> Iterator[None]:
    """Send `template_rendered` when the page is complete."""
    yield
    flask.template_rendered.send(app, _async_wrapper=app.ensure_sync, **details)


def _has_flashes() -> bool:
    return flask.has_request_context() and "_flashes" in flask.session
