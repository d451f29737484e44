"""Compiles `streamkit/engines/_passing.c` where a C compiler is; without one, all stays Python."""

from __future__ import annotations

import os
import platform
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

NAME = "streamkit.engines._passing"
SOURCE = "streamkit/engines/_passing.c"


class CompiledPart(BuildHookInterface[Any]):
    """Part of a wheel, and of an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or not _is_wanted():
            return
        try:
            built = self._built()
        except (BaseError, CCompilerError, OSError) as error:
            self.app.display_warning(f"streamkit is installed without its compiled part: {error}")
            return
        build_data["artifacts"].append(f"/{built}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def _built(self) -> Path:
        """Where it is, from the project's directory: beside its source."""
        root = Path(self.root)
        extension = Extension(NAME, [str(root / SOURCE)])
        command = build_ext(Distribution({"name": "streamkit", "ext_modules": [extension]}))
        with tempfile.TemporaryDirectory() as scratch:
            command.build_lib, command.build_temp = str(root), scratch
            command.ensure_finalized()
            command.run()
            return Path(command.get_ext_fullpath(NAME)).relative_to(root)


def _is_wanted() -> bool:
    return (
        platform.python_implementation() == "CPython"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")  # it counts on the lock
        and not os.environ.get("STREAMKIT_PURE_PYTHON")
    )
