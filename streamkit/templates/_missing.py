"""What to say where Jinja2 is not installed.

Rule: the error names what to install.
"""

from __future__ import annotations


def missing(error: ImportError) -> ImportError:
    """The error for a use of templates without Jinja2."""
    return ImportError(f"streamkit.templates needs Jinja2: pip install 'streamkit-web[templates]' ({error})")


def check_jinja() -> None:
    """`ImportError` with what to install, where Jinja2 is not."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise missing(error) from error
