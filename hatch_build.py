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
        if self.target_name != "wheel":
            return
        built = Path(self.root, SOURCE).with_name("_passing" + sysconfig.get_config_var("EXT_SUFFIX"))
        try:
            built.unlink(missing_ok=True)  # of sources that may have been others
            if not _is_wanted():
                return
            self._build(built)
        except (BaseError, CCompilerError, OSError) as error:
            self.app.display_warning(f"streamkit is installed without its compiled part: {error}")
            return
        build_data["artifacts"].append(f"/{built.relative_to(self.root).as_posix()}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def _build(self, target: Path) -> None:
        """Put it where it belongs: beside its source, whole."""
        extension = Extension(NAME, [str(Path(self.root, SOURCE))])
        command = build_ext(Distribution({"name": "streamkit", "ext_modules": [extension]}))
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".compiling-") as scratch:
            command.build_lib = command.build_temp = scratch
            command.ensure_finalized()
            command.run()
            Path(command.get_ext_fullpath(NAME)).replace(target)


def _is_wanted() -> bool:
    return (
        platform.python_implementation() == "CPython"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")  # it counts on the lock
        and not os.environ.get("STREAMKIT_PURE_PYTHON")
    )
