"""Templates in Django: its Jinja2 backend, in pieces.

    pages = Templates()

    def albums(request):
        return pages.chunked(request, "albums.html", albums=Album.objects.all())

Django's own template language has no pieces: such pages are rendered whole, by `render`.

Rule: the token against forgery and the messages of the request are taken before the head leaves, where
the page may ask for them: their cookies could not be set any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.messages.storage.base import BaseStorage
from django.http import HttpRequest, HttpResponseBase
from django.middleware.csrf import get_token
from django.template import TemplateDoesNotExist, engines
from django.template.backends.utils import csrf_input_lazy, csrf_token_lazy

from ..core.response import StreamingResponse
from ..errors import ProducerError
from ..options import Options
from ..templates import TemplateResponse
from ..templates import Templates as PlainTemplates
from ._django_threads import Surroundings, beside
from ._templates import may_ask_for, split


class DjangoTemplates:
    """`streamkit.Templates` of a Jinja2 backend of Django's.

    `using` names it, as in `render(using=)`; None is the first in `settings.TEMPLATES`. Templates have
    the context that `render` gives: the request, `csrf_token` and `csrf_input`, and that of the backend's
    context processors. `options` go over `settings.STREAMKIT`.
    """

    def __init__(self, using: str | None = None, options: Options | Mapping[str, Any] | None = None) -> None:
        self._using = using
        self._options = None if options is None else Options.of(options, {})
        self._last: PlainTemplates | None = None

    def chunked(self, request: HttpRequest, name: Any = None, **wishes_and_context: Any) -> HttpResponseBase:
        """Respond with a page that is sent while it is rendered; as `streamkit.Templates.chunked`.

        Raises Django's `TemplateDoesNotExist` and `TemplateSyntaxError`.
        """
        return self._responded("chunked", request, name, wishes_and_context)

    def view(self, request: HttpRequest, name: Any = None, **wishes_and_context: Any) -> HttpResponseBase:
        """Respond with a page that is sent whole; as `streamkit.Templates.view`."""
        return self._responded("view", request, name, wishes_and_context)

    def fragment(self, request: HttpRequest, name: Any, **context: Any) -> Any:
        """Render a template whole, as `Markup`, to be written by an error hook; as `Templates.fragment`."""
        backend = self._backend()
        templates = self._of(backend.env)
        return templates.fragment(_loaded(backend, name), **_context(backend, request, context))

    no_chunk = staticmethod(PlainTemplates.no_chunk)

    def _backend(self) -> Any:
        """The backend of Jinja2's templates, or what is wanted for it."""
        found = [engines[self._using]] if self._using is not None else engines.all()
        for backend in found:
            if hasattr(backend, "env"):
                return backend
        which = "a template engine of Django's Jinja2 backend"
        what = f"engine {self._using!r}" if self._using is not None else f"settings.TEMPLATES with {found!r}"
        raise ProducerError(
            f"wanted {which}, got {what}: the pages of Django's own language are rendered whole, by render()"
        )

    def _of(self, environment: Any) -> PlainTemplates:
        if self._last is None or self._last.environment is not environment:
            self._last = PlainTemplates(environment, self._options)
        return self._last

    def _responded(
        self, way: str, request: HttpRequest, name: Any, given: dict[str, Any]
    ) -> HttpResponseBase:
        wishes, context = split(given)
        backend = self._backend()
        templates = self._of(backend.env)  # before anything is loaded: its templates may have our tags
        if wishes.get("layout") is not None:
            wishes["layout"] = _loaded(backend, wishes["layout"])
        template = None if name is None else _loaded(backend, name)
        context = _context(backend, request, context)
        page: TemplateResponse = getattr(templates, way)(template, context=context, **wishes)
        if may_ask_for(page, ("csrf_token", "csrf_input")):
            get_token(request)
        for value_name, value in context.items():
            # By its type: of a lazy object, as `user` is, `isinstance` would ask the database.
            if issubclass(type(value), BaseStorage) and may_ask_for(page, (value_name,)):
                iter(value)  # they count as shown from here on
        # An asynchronous view begins it later, when the language may be another.
        page.resources, page.beside = (Surroundings(), *page.resources), beside()
        return self._respond(request, page)

    def _respond(self, request: HttpRequest, page: StreamingResponse) -> HttpResponseBase:
        raise NotImplementedError


def _loaded(backend: Any, name: Any) -> Any:
    """The template, or the first of several that exists; errors are Django's, for its debug page."""
    if isinstance(name, str):
        return backend.get_template(name).template
    if not isinstance(name, (list, tuple)):
        return name  # it is loaded already
    missing: list[str] = []
    for one in name:
        try:
            return _loaded(backend, one)
        except TemplateDoesNotExist as error:
            missing.append(str(error.args[0]))
    raise TemplateDoesNotExist(", ".join(missing), backend=backend)


def _context(backend: Any, request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What Django's backend gives to a template."""
    context["request"] = request
    context["csrf_input"] = csrf_input_lazy(request)
    context["csrf_token"] = csrf_token_lazy(request)
    for processor in backend.template_context_processors:
        context.update(processor(request))
    return context
