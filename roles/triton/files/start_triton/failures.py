# SPDX-License-Identifier: Apache-2.0
"""Why a server cannot be started, and how that is said."""

from __future__ import annotations

import sys

EXIT_CONFIG = 78
EXIT_LATER = 75


class StartError(Exception):
    """The server cannot be started; the text is one sentence for the user."""


class LaterError(Exception):
    """The server cannot be started now; the text is one sentence for the user."""


def say(text: str) -> None:
    from _delivery.terminal import one_line

    print(f"start_triton: {one_line(text)}", file=sys.stderr)


def reason(err: BaseException) -> str:
    """An error in a few words."""
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    if isinstance(err, KeyError):
        return f"{err.args[0]} is missing"
    return str(err)
