"""Compiles the C files of `streamkit/engines` where a C compiler is; without one, all stays Python."""

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

PACKAGE, ROOM = "streamkit.engines", "streamkit/engines"
PARTS = ("_passing", "_streams")


class CompiledPart(BuildHookInterface[Any]):
    """Part of a wheel, and of an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        built = [Path(self.root, ROOM, part + sysconfig.get_config_var("EXT_SUFFIX")) for part in PARTS]
        try:
            for part in built:
                part.unlink(missing_ok=True)  # of sources that may have been others
            if not _is_wanted():
                return
            self._build(built)
        except (BaseError, CCompilerError, OSError) as error:
            self.app.display_warning(f"streamkit is installed without its compiled part: {error}")
            return
        build_data["artifacts"] += [f"/{part.relative_to(self.root).as_posix()}" for part in built]
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def _build(self, targets: list[Path]) -> None:
        """Put each where it belongs: beside its source, whole."""
        parts = [Extension(f"{PACKAGE}.{part}", [str(Path(self.root, ROOM, f"{part}.c"))]) for part in PARTS]
        command = build_ext(Distribution({"name": "streamkit", "ext_modules": parts}))
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".compiling-") as scratch:
            command.build_lib = command.build_temp = scratch
            command.ensure_finalized()
            command.run()
            for part, target in zip(parts, targets, strict=True):
                Path(command.get_ext_fullpath(part.name)).replace(target)


def _is_wanted() -> bool:
    return (
        platform.python_implementation() == "CPython"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")  # it counts on the lock
        and not os.environ.get("STREAMKIT_PURE_PYTHON")
    )
