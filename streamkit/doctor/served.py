"""The app that a server is started with, found by the name in the environment.

    STREAMKIT_DOCTOR_TARGET=shop.wsgi:application gunicorn streamkit.doctor.served:app

Each server names an app and a factory in a way of its own; this module is named in the same way to all.

Rule: only a server imports this.
"""

from __future__ import annotations

import os
import sys

from .stack import load

TARGET = "STREAMKIT_DOCTOR_TARGET"

sys.path.insert(0, os.getcwd())
app = load(os.environ[TARGET])
