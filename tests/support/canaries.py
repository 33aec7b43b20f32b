# SPDX-License-Identifier: Apache-2.0
"""Secrets that are planted, and looked for wherever they must not be."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

_LARGEST = 64 << 20


class Canaries:
    """``canaries["name"]`` is a secret of that name, planted from now on."""

    def __init__(self) -> None:
        self._planted: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        return self._plant(name, "~ö/+Zx")

    def ascii(self, name: str) -> str:
        """For a header or a file that takes no other characters."""
        return self._plant(name, "/+Zx")

    def _plant(self, name: str, end: str) -> str:
        number, word = len(self._planted) + 101, name.replace(" ", "-")
        return self._planted.setdefault(name, f"Kanarie{number}.{word}{end}")

    def url(self, name: str, place: str, scheme: str = "http", user: str = "me") -> str:
        """An address with a password."""
        return f"{scheme}://{user}:{quote(self[name], safe='')}@{place}"

    def forms(self) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of each form in which a secret gives itself away."""
        for name, secret in self._planted.items():
            raw = secret.encode()
            yield name, raw
            yield name, quote(secret, safe="").encode()
            yield name, quote(secret).encode()
            yield name, quote_plus(secret).encode()
            yield name, json.dumps(secret)[1:-1].encode()
            yield name, secret.encode("latin-1")
            yield name, ascii(secret)[1:-1].encode()
            for before in range(3):  # wherever it begins in what was encoded
                whole = base64.b64encode(b"x" * before + raw)
                yield name, whole[4 if before else 0 : len(whole) // 4 * 4 - 4]

    def found_in(self, data: bytes) -> set[str]:
        return {name for name, form in self.forms() if form in data}

    def found_in_text(self, text: str) -> dict[str, str]:
        """Name → where, for whoever reads the failure."""
        data, found = text.encode(errors="surrogateescape"), {}
        for name, form in self.forms():
            if (at := data.find(form)) >= 0:
                found[name] = data[max(0, at - 300) : at + 100].decode(errors="replace")
        return found

    def found_in_files(
        self, folder: Path, kept: Mapping[str, Iterable[str]] | None = None
    ) -> list[str]:
        """What is found below a folder, and in its names.

        Args:
            kept: end of a path → the secrets that have to lie there, closed to everybody else.
        """
        found = []
        for path in sorted(folder.rglob("*")):
            found += [f"{name} is the name of {path}" for name in self.found_in(os.fsencode(path))]
            if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
                continue
            here = self.found_in(path.read_bytes())
            for end, names in (kept or {}).items():
                if str(path).endswith(end):
                    mode = path.stat().st_mode & 0o777
                    here -= set(names) if not mode & 0o037 else set()
                    here = {f"{name} (mode {mode:o})" for name in here}
            found += [f"{name} lies in {path}" for name in sorted(here)]
        return found
