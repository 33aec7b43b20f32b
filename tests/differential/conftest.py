# SPDX-License-Identifier: Apache-2.0
"""Every conversion and native route against the library that trained the model, over generated data
sets and parameters. Runs in the environment `frameworks`.

HYPOTHESIS_PROFILE=search tries other examples each time, and many more (make differential).
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# It trains beside other work, and threads of small trainings cost more than they save.
os.environ.setdefault("OMP_NUM_THREADS", "1")

QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]

settings.register_profile(
    "same", derandomize=True, deadline=None, max_examples=40, database=None,
    suppress_health_check=QUIET,
)  # fmt: skip
settings.register_profile(
    "search", deadline=None, max_examples=1500, database=None, suppress_health_check=QUIET,
    print_blob=True,
)  # fmt: skip
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
