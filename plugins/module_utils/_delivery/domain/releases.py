# SPDX-License-Identifier: Apache-2.0
"""Which fields of config.pbtxt came with which release of Triton; pure.

A server refuses a configuration for a field that is newer than itself, with a cause that stands in
its log alone. What is not known here is not refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import pbtxt

# Name of the field → the server's version that knows it first, and the name of that release. Taken
# from protobuf/model_config.proto of triton-inference-server/common, on the first branch r<release>
# that has the field; the server 2.51.0 of the wheel nvidia-pytriton 0.7.0 refuses those over 2.51
# and takes the others (tests/integration/test_config_oracle.py). Names that another message of the
# configuration had before are left out.
SINCE: dict[str, tuple[tuple[int, int], str]] = {
    "model_namespace": ((2, 32), "23.03"),
    "iterative_sequence": ((2, 40), "23.11"),
    "use_growable_memory": ((2, 40), "23.11"),
    "use_same_buffer_for_input_output": ((2, 40), "23.11"),
    "runtime": ((2, 42), "24.01"),
    "is_non_linear_format_io": ((2, 49), "24.08"),
    "model_metrics": ((2, 52), "24.11"),
    "max_inflight_requests": ((2, 63), "25.11"),
}


@dataclass(frozen=True)
class DatedField:
    """A field in a configuration, its line there, and what knows it first."""

    name: str
    line: int
    since: tuple[int, int]
    release: str


def dated_fields(config: bytes) -> tuple[DatedField, ...]:
    """The fields of a configuration that not every server knows.

    Args:
        config: config.pbtxt, which parses.
    """
    text = pbtxt.decode(config)
    words = pbtxt.tokens(text)
    found, line, counted = [], 1, 0
    for word, following in zip(words, words[1:]):  # noqa: RUF007  the start wrapper's 3.9 has none
        if word.kind == "word" and word.text in SINCE and following.text in (":", "{", "<", "["):
            line, counted = line + text.count("\n", counted, word.start), word.start
            found.append(DatedField(word.text, line, *SINCE[word.text]))
    return tuple(found)


def version_of(release: str | None) -> tuple[int, int] | None:
    """Major and minor of a server's version, "2.51.0"; None where it says something else."""
    found = re.match(r"(\d+)\.(\d+)", release or "")
    return (int(found[1]), int(found[2])) if found else None


def too_new(field: DatedField, release: str | None) -> bool:
    """True where a server of this version is known not to know the field."""
    version = version_of(release)
    return version is not None and version < field.since
