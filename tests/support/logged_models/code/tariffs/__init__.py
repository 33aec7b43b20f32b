# SPDX-License-Identifier: Apache-2.0
"""A data scientist's own module, logged with the model that imports it (``code_paths``)."""

from __future__ import annotations

import json
from pathlib import Path


def read_table(path: str) -> dict[str, float]:
    return dict(json.loads(Path(path).read_text(encoding="utf-8")))
