# SPDX-License-Identifier: Apache-2.0
"""Trees of scikit-learn in which a server would never come to an end are refused."""

from __future__ import annotations

import pytest

pytest.importorskip("treelite")

from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ArtifactError
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats import (
    sklearn_to_treelite as trees,
)

LEAF = trees._Node(-1, -1, 0, 0.0, False, 1.0)


def serialized(*nodes: trees._Node) -> bytes:
    forest = trees._Forest(2, "kRegressor", 1, [(0, iter(nodes))], [0.0], ("identity", 0.0))
    return trees._serialize(forest)


def split(left: int, right: int, feature: int = 1) -> trees._Node:
    return trees._Node(left, right, feature, 0.5, True, None)


def test_a_tree_that_leads_back_is_refused() -> None:
    assert serialized(split(1, 2), LEAF, LEAF)
    assert serialized(split(1, 4), split(2, 3), LEAF, LEAF, LEAF)
    for nodes in (
        (split(1, 2), split(0, 2), LEAF),
        (split(1, 2), split(2, 1), LEAF),
        (split(1, 2, -1), LEAF, LEAF),
        (split(1, 2, -1000000), LEAF, LEAF),
        (split(1, 2, 2), LEAF, LEAF),
    ):
        with pytest.raises(ArtifactError, match="of one of its trees leads back"):
            serialized(*nodes)
