# SPDX-License-Identifier: Apache-2.0
"""Packs the MLflow plugin of this collection, wherever that is installed, as a wheel; needs nothing
but Python.

    python plugin_wheel.py COLLECTION (FOLDER | --digest)

COLLECTION is the collection's folder, a checkout or what ansible-galaxy installed. Writes the wheel
and prints its path, or prints a digest of all that it would hold. The same input gives the same
bytes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path

# Role triton packs its start wrapper in the same way.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "triton/files"))

from pack_start_triton import python_files, wrapper_files, write_zip

PACKAGE = "ansible_collections/mlops/triton"
# Whole packages: a new file in one of them is packed without a word here.
FOLDERS = ("plugins/mlflow_deployments", "plugins/module_utils/_delivery")
# The command of the reference guide, which finds the core beside itself.
COMMAND = "publish_model_to_mlflow.py"
REQUIREMENTS = "roles/triton/files/requirements-client.txt"
ENTRY_POINTS = (
    "[mlflow.deployments]\ntriton = ansible_collections.mlops.triton.plugins.mlflow_deployments\n"
)


def version_of(collection: Path) -> str:
    manifest = collection / "MANIFEST.json"
    if manifest.is_file():
        return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    found = re.search(
        r'(?m)^version: "?([^"\s]+)', (collection / "galaxy.yml").read_text(encoding="utf-8")
    )
    if not found:
        raise ValueError(f"{collection} names no version")
    return found.group(1)


def requirements(collection: Path) -> list[str]:
    lines = (collection / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")] + [
        "numpy",
        "protobuf",
        "PyYAML",
    ]


def contents(collection: Path) -> dict[str, bytes]:
    """Place in the wheel → bytes."""
    found = [path for folder in FOLDERS for path in python_files(collection, folder)]
    found += wrapper_files(collection)  # which run-local starts
    # A wheel has put it beside the collection.
    found += [collection / COMMAND] if (collection / COMMAND).is_file() else []
    return {
        f"{PACKAGE}/{path.relative_to(collection).as_posix()}": path.read_bytes() for path in found
    }


def describe(collection: Path, version: str) -> dict[str, bytes]:
    needed = "".join(f"Requires-Dist: {line}\n" for line in requirements(collection))
    metadata = (
        f"Metadata-Version: 2.1\nName: mlops-triton\nVersion: {version}\nRequires-Python:"
        f" >=3.10\n{needed}"
    )
    wheel = (
        "Wheel-Version: 1.0\nGenerator: mlops.triton\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    return {
        "METADATA": metadata.encode(),
        "WHEEL": wheel.encode(),
        "entry_points.txt": ENTRY_POINTS.encode(),
    }


def record_line(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def wheel_files(collection: Path) -> dict[str, bytes]:
    """Place in the wheel → bytes, its own descriptions last."""
    version = version_of(collection)
    information = f"mlops_triton-{version}.dist-info"
    files = contents(collection)
    files.update(
        {f"{information}/{name}": data for name, data in describe(collection, version).items()}
    )
    record = f"{information}/RECORD"
    files[record] = (
        "".join(record_line(name, data) for name, data in files.items()) + f"{record},,\n"
    ).encode()
    return files


def make_wheel(collection: Path, folder: Path) -> Path:
    target = folder / f"mlops_triton-{version_of(collection)}-py3-none-any.whl"
    write_zip(target, wheel_files(collection), zipfile.ZIP_DEFLATED)
    return target


def digest(collection: Path) -> str:
    """Of everything that the wheel holds; the wheel's list of its files has a digest of each."""
    *_files, (_name, record) = wheel_files(collection).items()
    return hashlib.sha256(record).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Packs the MLflow plugin of this collection as a wheel."
    )
    parser.add_argument("collection", type=Path)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("folder", type=Path, nargs="?")
    wanted.add_argument("--digest", action="store_true")
    arguments = parser.parse_args()
    try:
        if arguments.digest:
            print(digest(arguments.collection))
            return 0
        arguments.folder.mkdir(parents=True, exist_ok=True)
        print(make_wheel(arguments.collection, arguments.folder))
    except (OSError, ValueError) as error:
        print(f"The plugin cannot be packed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
