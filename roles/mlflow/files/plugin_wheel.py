# SPDX-License-Identifier: Apache-2.0
"""Packs the MLflow plugin of this collection, wherever that is installed, as a wheel; needs nothing
but Python.

    python plugin_wheel.py COLLECTION FOLDER

COLLECTION is the collection's folder, a checkout or what ansible-galaxy installed. Prints the
wheel's path. The same input gives the same bytes.
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

PACKAGE = "ansible_collections/mlops/triton"
FOLDERS = ("plugins/mlflow_deployments", "plugins/module_utils/_delivery")
# What run-local starts, and the command of the reference guide, which finds the core beside itself.
FILES = ("roles/triton/files/start_triton.py", "publish_model_to_mlflow.py")
REQUIREMENTS = "roles/triton/files/requirements-client.txt"
ENTRY_POINTS = (
    "[mlflow.deployments]\ntriton = ansible_collections.mlops.triton.plugins.mlflow_deployments\n"
)
MOMENT = (1980, 1, 1, 0, 0, 0)


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
    found = [path for folder in FOLDERS for path in sorted((collection / folder).rglob("*.py"))]
    # Where the collection came as a wheel, it has no command.
    found += [collection / name for name in FILES if (collection / name).is_file()]
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


def make_wheel(collection: Path, folder: Path) -> Path:
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
    target = folder / f"mlops_triton-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, MOMENT)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Packs the MLflow plugin of this collection as a wheel."
    )
    parser.add_argument("collection", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        print(make_wheel(arguments.collection, arguments.folder))
    except (OSError, ValueError) as error:
        print(f"The plugin cannot be packed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
