# SPDX-License-Identifier: Apache-2.0
"""Names for values from outside that have no types: JSON and YAML documents, options, MLflow.

What is read of them is checked where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the start wrapper runs this file with Python 3.9, which has none
    from typing import TypeAlias

Json: TypeAlias = Any
"""A JSON value."""
JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object that is read."""
JsonDict: TypeAlias = dict[str, Any]
"""A JSON object that is made, for a result or a file."""
Options: TypeAlias = Mapping[str, Any]
"""A module's parameters, or a plugin's options, by name."""
MlflowObject: TypeAlias = Any
"""A client, an entity or an error of MLflow, whose versions differ in what they declare."""
HttpAnswer: TypeAlias = Any
"""A response of requests."""
