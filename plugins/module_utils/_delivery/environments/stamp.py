# SPDX-License-Identifier: Apache-2.0
"""What lies beside the packages of an environment: what it is, and its bill of materials."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from .. import disk
from ..domain.fields import Fields, WrongShape, read_json
from ..outside import JsonDict
from .pythons import Python
from .resolving import Lock

NAME, BILL = "environment.json", "sbom.json"
SCHEMA = 1
_ALGORITHMS = {"sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}


@dataclass(frozen=True)
class Environment:
    """An environment that is there.

    Attributes:
        python: path of its interpreter.
        packages: (name, version) of each.
        size: bytes of its files.
        lock: the text from which every host makes the same one.
        version, platform, base: of the Python that it was made with.
    """

    digest: str
    python: str
    packages: tuple[tuple[str, str], ...]
    size: int
    lock: str
    version: str
    platform: str
    base: str
    lock_digest: str


def made_of(
    folder: str, digest: str, lock: Lock, python: Python, size: int
) -> tuple[Environment, JsonDict]:
    """The value, and what is written down of it."""
    made = Environment(
        digest,
        os.path.join(folder, "bin/python"),
        tuple(sorted(lock.packages)),
        size,
        lock.text,
        python.version,
        python.platform,
        python.path,
        lock.digest,
    )
    written: JsonDict = {
        "schema": SCHEMA,
        "digest": digest,
        "lock_digest": lock.digest,
        "lock": lock.text,
        "python": {
            "version": python.version,
            "platform": python.platform,
            "base": python.path,
        },
        "packages": [{"name": name, "version": version} for name, version in made.packages],
        "size": size,
        "built_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return made, written


def read_stamp(folder: str) -> Environment | None:
    """None where there is none that can be read, or one of another release."""
    try:
        fields = Fields(read_json(disk.read_small(os.path.join(folder, NAME)), 1 << 20))
        if fields.number("schema") != SCHEMA:
            return None
        python = fields.inner("python")
        return Environment(
            fields.text("digest"),
            os.path.join(folder, "bin/python"),
            tuple((one.text("name"), one.text("version")) for one in fields.objects("packages")),
            fields.number("size"),
            fields.text("lock"),
            python.text("version"),
            python.text("platform"),
            python.text("base"),
            fields.text("lock_digest"),
        )
    except (OSError, WrongShape):
        return None


def bill_of_materials(digest: str, lock: Lock, python: Python) -> JsonDict:
    """CycloneDX 1.6. A package may have been installed from any file of its version that fits this
    platform: all their hashes are listed, as the lock allows them.
    """
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [
                {"alg": _ALGORITHMS[kind], "content": value}
                for kind, _colon, value in (one.partition(":") for one in sorted(hashes))
            ],
        }
        for (name, version), hashes in sorted(lock.packages.items())
    ]
    subject = {
        "type": "application",
        "bom-ref": f"environment-{digest}",
        "name": f"environment-{digest}",
        "version": digest,
        "properties": [{"name": "python", "value": f"{python.version} {python.platform}"}],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [
            {"ref": subject["bom-ref"], "dependsOn": [one["bom-ref"] for one in components]}
        ],
    }
