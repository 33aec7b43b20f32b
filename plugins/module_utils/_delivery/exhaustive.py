# SPDX-License-Identifier: Apache-2.0
"""A ``match`` that mypy holds to name every member of a union."""

from __future__ import annotations

from typing import NoReturn


def assert_never(value: NoReturn) -> NoReturn:
    """For the last ``case``: mypy complains where a value can get here. ``typing.assert_never`` is
    Python 3.11's, and the core runs on 3.10.

    Raises:
        AssertionError: it was called after all, by code that nobody checked.
    """
    raise AssertionError(f"{value!r} is not expected here")
