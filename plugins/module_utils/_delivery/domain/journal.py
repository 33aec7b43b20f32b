# SPDX-License-Identifier: Apache-2.0
"""What is written down of a change before it begins."""

from __future__ import annotations

SWAP, REMOVE, PENDING = "swap", "remove", "pending"
