# SPDX-License-Identifier: Apache-2.0
"""What the environment of `make unit-core` does not have."""

from __future__ import annotations

import re

NOT_IN_CORE = ("ansible", "pandas", "treelite")
"""What tests of the core ask for and skip without."""
ASKS_FOR_MORE = re.compile(rf'importorskip\(\s*"({"|".join(NOT_IN_CORE)})')
