# SPDX-License-Identifier: Apache-2.0
"""How many examples properties are tried with: the same ones each time, or others each time.

HYPOTHESIS_PROFILE=search pytest tests/unit -k properties
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow]  # how busy a machine is says nothing of a test

settings.register_profile(
    "same", derandomize=True, deadline=None, max_examples=40, database=None,
    suppress_health_check=SLOW,
)  # fmt: skip
settings.register_profile(
    "search", deadline=None, max_examples=2000, database=None, suppress_health_check=SLOW
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
