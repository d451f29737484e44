"""What to say where a framework is not installed.

Rule: the error names what to install.
"""

from __future__ import annotations


def missing(framework: str, error: ImportError) -> ImportError:
    """The error for a room whose framework is not there."""
    name = {"fastapi": "FastAPI"}.get(framework, framework.capitalize())
    return ImportError(
        f"streamkit.frameworks.{framework} needs {name}: pip install 'streamkit-web[{framework}]' ({error})"
    )
