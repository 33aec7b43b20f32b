# SPDX-License-Identifier: Apache-2.0
"""Packs the start wrapper and what it imports as one zip that Python runs; needs nothing but
Python.

    python pack_start_triton.py COLLECTION FOLDER

COLLECTION is the collection's folder, a checkout or what ansible-galaxy installed. Writes
FOLDER/start_triton.pyz and prints its sha256. The same input gives the same bytes, with every
release of Python and zlib, because nothing is compressed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

NAME = "start_triton.pyz"
WRAPPER = "roles/triton/files"
CORE = "plugins/module_utils"
# Whole packages: a new file in one of them is packed without a word here.
PACKAGES = ("_delivery/domain", "_delivery/repository")
MOMENT = (1980, 1, 1, 0, 0, 0)


def python_files(collection: Path, folder: str, below: str = "**/*.py") -> list[Path]:
    """Modules below a folder of the collection, in one order everywhere."""
    return sorted((collection / folder).glob(below))


def wrapper_files(collection: Path) -> list[Path]:
    """The start wrapper itself, as it lies in the collection."""
    return [
        *python_files(collection, f"{WRAPPER}/start_triton"),
        collection / WRAPPER / "host.py",
    ]


def contents(collection: Path) -> dict[str, bytes]:
    """Place in the zip → bytes."""
    core = python_files(collection, f"{CORE}/_delivery", "*.py")
    for package in PACKAGES:
        core += python_files(collection, f"{CORE}/{package}")
    files = {
        path.relative_to(collection / base).as_posix(): path.read_bytes()
        for base, paths in ((WRAPPER, wrapper_files(collection)), (CORE, core))
        for path in paths
    }
    files["__main__.py"] = files["start_triton/__main__.py"]
    return files


def write_zip(target: Path, files: Mapping[str, bytes], compression: int) -> None:
    """Write files in the order given, without a trace of when and by whom."""
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, MOMENT)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            entry.compress_type = compression
            archive.writestr(entry, data)


def pack(collection: Path, folder: Path) -> Path:
    files = contents(collection)
    target = folder / NAME
    write_zip(target, {name: files[name] for name in sorted(files)}, zipfile.ZIP_STORED)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(description="Packs the start wrapper as one zip.")
    parser.add_argument("collection", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    try:
        print(hashlib.sha256(pack(arguments.collection, arguments.folder).read_bytes()).hexdigest())
    except (OSError, KeyError) as error:
        print(f"The start wrapper cannot be packed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
