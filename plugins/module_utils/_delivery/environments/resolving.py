# SPDX-License-Identifier: Apache-2.0
"""Requirements become a lock: exact versions with hashes, for one minor version of Python and one
platform. It is kept, so that the same requirements mean the same packages the next time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from .. import disk
from ..domain.requirements import Requirements, read_lock
from ..effects import effect
from ..errors import ArtifactError, DeliveryError
from .bounded import STEP
from .options import EnvironmentOptions
from .place import Place, Work
from .pythons import Python
from .uv_program import Uv
from .uv_words import names_package

Packages = Mapping[tuple[str, str], tuple[str, ...]]
_SKINNY = "mlflow-skinny"


@dataclass(frozen=True)
class Lock:
    """Packages and versions with the hashes that each may have."""

    packages: Packages

    @classmethod
    def read(cls, text: str) -> Lock:
        """Raises ArtifactError where it is none, or a package has no hash."""
        found = read_lock(text)
        bare = sorted(name for (name, _version), hashes in found.items() if not hashes)
        if bare or not found:
            raise ArtifactError(
                f"the lock has no hash of '{bare[0]}'" if bare else "the lock is empty", step=STEP
            )
        return cls(found)

    @property
    def text(self) -> str:
        """A line for each package, as pip reads it; the same whoever wrote it."""
        return "".join(
            " ".join([f"{name}=={version}", *(f"--hash={one}" for one in sorted(hashes))]) + "\n"
            for (name, version), hashes in sorted(self.packages.items())
        )

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def environment_digest(lock: Lock, python: Python) -> str:
    """The name of an environment: what is in it, for which Python."""
    facts = [1, lock.text, python.version, python.platform]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


class Locks:
    """The locks that were made here."""

    def __init__(self, place: Place, options: EnvironmentOptions) -> None:
        self._place = place
        self._options = options

    def key(self, wanted: Requirements, python: Python) -> str:
        """What hosts have in common that install the same."""
        facts = [1, wanted.digest, python.minor, python.platform, self._options.sources]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def _path(self, wanted: Requirements, python: Python) -> str:
        return self._place.path("locks", f"{self.key(wanted, python)}.txt")

    def of_another_host(self, wanted: Requirements, python: Python) -> Lock | None:
        """What the options say that another host has resolved."""
        text = self._options.locks.get(self.key(wanted, python))
        return Lock.read(text) if text is not None else None

    def kept(self, wanted: Requirements, python: Python) -> Lock | None:
        """None where there is none, or one that somebody damaged."""
        try:
            return Lock.read(disk.read_small(self._path(wanted, python)).decode())
        except (OSError, UnicodeDecodeError, DeliveryError):
            return None

    def keep(self, wanted: Requirements, python: Python, lock: Lock) -> None:
        if self.kept(wanted, python) != lock:
            disk.replace_file(self._path(wanted, python), lock.text.encode())


def resolve(wanted: Requirements, python: Python, uv: Uv, place: Place, work: Work) -> Lock:
    """Ask the indexes.

    Raises:
        DeliveryError: a package cannot be had, or the requirements contradict each other.
    """
    try:
        return _resolve(wanted, wanted.lines, python, uv, place, work)
    except DeliveryError as error:
        # Some releases of MLflow have no small one beside them.
        small = next((line for line in wanted.added if line.startswith(_SKINNY)), None)
        if small is None or not names_package(error.message, _SKINNY):
            raise
        large = small.replace(_SKINNY, "mlflow", 1)
        lines = tuple(large if line == small else line for line in wanted.lines)
        return _resolve(wanted, lines, python, uv, place, work)


def _resolve(
    wanted: Requirements,
    lines: tuple[str, ...],
    python: Python,
    uv: Uv,
    place: Place,
    work: Work,
) -> Lock:
    allowed = read_lock(wanted.lock or "")
    versions: dict[str, list[str]] = {}
    for name, version in allowed:
        versions.setdefault(name, []).append(version)
    exact = [f"{name}=={listed[0]}\n" for name, listed in versions.items() if len(listed) == 1]
    source, limits, target = work.top + "/in.txt", work.top + "/limits.txt", work / "out.txt"
    disk.write_file(source, "".join(f"{line}\n" for line in lines).encode())
    disk.write_file(limits, "".join(exact).encode())
    with effect("resolve", target), place.cache(work, own=uv.builds) as cache:
        uv(
            [
                *("pip", "compile", source, "--constraint", limits, "--output-file", target),
                *("--python", python.path, "--quiet", "--generate-hashes"),
                *("--no-header", "--no-annotate", "--no-emit-index-url"),
                *uv.choice,
            ],
            cache,
        )
    try:
        found = Lock.read(disk.read_small(target).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryError(f"what uv resolved cannot be read ({error})", step=STEP) from error
    return Lock({key: _both(key, hashes, allowed) for key, hashes in found.packages.items()})


def _both(key: tuple[str, str], found: tuple[str, ...], allowed: Packages) -> tuple[str, ...]:
    """The hashes that index and publisher agree upon."""
    said = allowed.get(key, ())
    if not said:
        return found
    both = tuple(one for one in found if one in said)
    if not both:
        raise DeliveryError(
            f"the index has other bytes for {key[0]}=={key[1]} than the model's publisher wrote"
            " down (no hash of it is the same): use the index with which the model was logged, in"
            " index_url of the option environments",
            step=STEP,
        )
    return both
