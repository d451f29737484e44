"""Django, set up once in a process, with a database that counts; and a site for real servers.

    gunicorn tests.frameworks.django_site:wsgi_app

Rule: nothing is set here that a test wants otherwise. The database is a file, so that threads have
connections of their own, and `database` counts those that are open, by the thread that opened them.
"""

from __future__ import annotations

import atexit
import os
import resource
import shutil
import sys
import tempfile
import threading
import types
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.db.backends.sqlite3 import base as sqlite

import streamkit

OURS = "streamkit.frameworks.django.StreamKitMiddleware"

# ---------------------------------------------------------------- a database that counts


class Database:
    """Which connections are open, and who opened and closed them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.open: dict[int, int] = {}  # of each connection: the thread that opened it
        self.faults: list[str] = []
        self.opened = 0

    def opens(self, wrapper: Any) -> None:
        with self._lock:
            self.open[id(wrapper)] = threading.get_ident()
            self.opened += 1

    def closes(self, wrapper: Any) -> None:
        with self._lock:
            opener = self.open.pop(id(wrapper), None)
        if opener not in (None, threading.get_ident()):
            self.faults.append("a connection was closed by another thread than its own")


database = Database()


class DatabaseWrapper(sqlite.DatabaseWrapper):
    def get_new_connection(self, parameters: Any) -> Any:
        connection = super().get_new_connection(parameters)
        database.opens(self)
        return connection

    def _close(self) -> None:
        if self.connection is not None:
            database.closes(self)
        super()._close()


def _counting_backend() -> str:
    """Django wants the name of a package with a module `base`."""
    package, base = types.ModuleType("counted_sqlite"), types.ModuleType("counted_sqlite.base")
    package.__path__ = []
    base.DatabaseWrapper = DatabaseWrapper  # type: ignore[attr-defined]
    sys.modules.update({"counted_sqlite": package, "counted_sqlite.base": base})
    return "counted_sqlite"


FOLDER = Path(os.environ.get("STREAMKIT_SITE") or tempfile.mkdtemp(prefix="streamkit-django-"))
if "STREAMKIT_SITE" not in os.environ:
    atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={
            "default": {
                "ENGINE": _counting_backend(),
                "NAME": FOLDER / "site.sqlite3",
                "TEST": {"NAME": FOLDER / "site.sqlite3"},
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=[],
        LANGUAGES=[("en", "English"), ("de", "Deutsch"), ("fr", "Français")],
        LANGUAGE_CODE="en",
        LOGGING_CONFIG=None,
        MIDDLEWARE=[OURS],
        ROOT_URLCONF=__name__,
        SECRET_KEY="only for tests",
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        TIME_ZONE="UTC",
        USE_TZ=True,
    )
    django.setup()

from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from streamkit.frameworks.django import respond  # noqa: E402


class Row(models.Model):
    number = models.IntegerField()
    name = models.TextField()

    class Meta:
        app_label = "site"
        db_table = "row"


def fill(rows: int) -> None:
    """Make the table, with so many rows."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS row")
        cursor.execute("CREATE TABLE row (id integer PRIMARY KEY, number integer, name text)")
        cursor.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < %s) "
            "INSERT INTO row (number, name) SELECT i, 'name ' || i FROM n",
            [rows],
        )
    connection.close()


def connected() -> int:
    """How many rows there are; the connection of this thread is open afterwards."""
    return Row.objects.count()


# ---------------------------------------------------------------- the site for real servers


def export(request: HttpRequest) -> Any:
    """All rows as CSV."""
    rows = Row.objects.values_list("number", "name").iterator(chunk_size=2000)
    return respond(request, streamkit.csv_rows(rows, "rows.csv"))


async def export_async(request: HttpRequest) -> Any:
    # Not by values_list: its aiterator() asks the database on the loop (Django 5.2).
    rows = ((row.number, row.name) async for row in Row.objects.aiterator(chunk_size=2000))
    return respond(request, streamkit.csv_rows(rows, "rows.csv"))


def peak() -> int:
    """The most memory that this process has had, in bytes; `ru_maxrss` knows its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def stats(request: HttpRequest) -> JsonResponse:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return JsonResponse(
        {
            "connections": len(database.open),
            "opened": database.opened,
            "faults": database.faults,
            "resident": resident,
            "peak": peak(),
        }
    )


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


urlpatterns = [
    path("plain", plain),
    path("export", export),
    path("export-async", export_async),
    path("stats", stats),
]


def wsgi_app(environ: Any, start_response: Any) -> Any:
    return _handler(WSGIHandler)(environ, start_response)


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await _handler(ASGIHandler)(scope, receive, send)


_handlers: dict[Any, Any] = {}


def _handler(kind: Any) -> Any:
    if kind not in _handlers:
        _handlers[kind] = kind()
    return _handlers[kind]
