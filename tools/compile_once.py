# SPDX-License-Identifier: Apache-2.0
"""Keeps what Python compiles out of zip files, in a folder beside this file.

Ansible sends a module as a zip of sources, and Python compiles all of it anew each time: a third of
the processor time of a playbook. ``install`` puts this file into the site-packages of an
environment, whose Pythons import it at their start. What is kept is found again by the source's
bytes alone.

As ``sitecustomize`` of a system's Python, of which hosts of Molecule's scenarios make environments,
it keeps what pip compiles too: half of the processor time of an installation.
"""

from __future__ import annotations

import marshal
import os
import sys
import zipimport

# Of typing without its import, because each Python would pay for that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compile_once.d")


def wrap(
    compile_source: Callable[[str, bytes], CodeType], folder: str
) -> Callable[[str, bytes], CodeType]:
    """A ``zipimport._compile_source`` that looks into the folder first."""
    import _imp
    from importlib._bootstrap_external import MAGIC_NUMBER

    # As Python marks compiled files that belong to a source by its hash.
    key = int.from_bytes(MAGIC_NUMBER, "little")

    def compile_once(path: str, source: bytes) -> CodeType:
        kept = os.path.join(folder, f"{_imp.source_hash(key, source).hex()}-{len(source)}")
        try:
            with open(kept, "rb") as file:
                code: CodeType = marshal.load(file)
            _imp._fix_co_filename(code, path)  # type: ignore[attr-defined]  # as imports do
            return code
        except (OSError, EOFError, ValueError, TypeError):
            pass  # not there yet, or cut off
        code = compile_source(path, source)
        try:
            new = f"{kept}.{os.getpid()}"
            with open(new, "xb") as file:
                marshal.dump(code, file)
            os.replace(new, kept)
        except OSError:
            pass  # another user's environment
        return code

    return compile_once


def wrap_loader(loader: type, folder: str) -> None:
    """The same for what is compiled out of a file: by an import, and by pip."""
    plain = loader.source_to_code  # type: ignore[attr-defined]

    def source_to_code(self: Any, data: Any, path: Any, **options: Any) -> CodeType:
        def compile_source(path: str, source: bytes) -> CodeType:
            code: CodeType = plain(self, source, path, **options)
            return code

        # Not what -O leaves out.
        is_usual = options.get("_optimize", -1) == -1 and not sys.flags.optimize
        if not is_usual or not isinstance(data, bytes) or not isinstance(path, str):
            return compile_source(path, data)
        return wrap(compile_source, folder)(path, data)

    loader.source_to_code = source_to_code  # type: ignore[attr-defined]


def install(site_packages: str) -> None:
    """Install it there, where it is not yet: what it has kept stays."""
    import filecmp
    import shutil

    folder = os.path.join(site_packages, "compile_once.d")
    program = os.path.join(site_packages, "compile_once.py")
    if os.path.isdir(folder) and os.path.exists(program) and filecmp.cmp(__file__, program):
        return
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    shutil.copy(__file__, program)
    with open(os.path.join(site_packages, "compile_once.pth"), "w", encoding="utf-8") as file:
        file.write("import compile_once\n")


if os.path.isdir(FOLDER):
    # Private, and the same from Python 3.8 to 3.13.
    zipimport._compile_source = wrap(zipimport._compile_source, FOLDER)  # type: ignore[attr-defined]
    if __name__ == "sitecustomize":
        from importlib._bootstrap_external import SourceLoader

        wrap_loader(SourceLoader, FOLDER)
