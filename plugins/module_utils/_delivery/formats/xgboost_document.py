# SPDX-License-Identifier: Apache-2.0
"""An XGBoost model as the document that it is, JSON or UBJSON, and how many of its trees the class
that trained it answers with; stdlib only.

A model of XGBoost's scikit-learn classes that stopped early answers with the trees up to
``best_iteration``, an attribute of the file; a Booster, and everything that reads the file on a
server, with all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import OtherAnswers
from .ubjson import Span, first_of, read_ubjson, replace, text, values_of

CUT = (
    "take the trees that count, model.get_booster()[: model.best_iteration + 1], and save or log"
    " that Booster"
)


@dataclass(frozen=True)
class Document:
    """A parsed file; ``data`` is its bytes."""

    data: bytes
    is_json: bool
    learner: Mapping[str, Any]
    root: Mapping[str, Any]


def read_document(data: bytes) -> Document:
    """Parse a file that begins with a brace.

    Raises:
        ValueError: neither JSON nor UBJSON, or no model.
    """
    is_json = data[:64].lstrip()[1:].lstrip()[:1] == b'"'
    root = json.loads(data) if is_json else read_ubjson(data)
    learner = root.get("learner") if isinstance(root, Mapping) else None
    if not isinstance(learner, Mapping):
        raise ValueError("it has no key 'learner'")
    return Document(data, is_json, learner, root)


def without_unused_trees(document: Document, scikit_learn: bool | None) -> bytes | None:
    """The file without the trees after ``best_iteration``; None where every tree counts.

    Args:
        scikit_learn: whether one of XGBoost's scikit-learn classes answers; None where only the
            file tells.

    Raises:
        OtherAnswers: which trees count cannot be proven.
        ValueError, KeyError, TypeError: no model of XGBoost.
    """
    attributes = document.learner.get("attributes") or {}
    best = attributes.get("best_iteration")
    if scikit_learn is None:
        scikit_learn = "scikit_learn" in attributes
    if best is None or not scikit_learn:
        return None
    model, drops = _ensemble(document.learner["gradient_booster"])
    total = int(model["gbtree_model_param"]["num_trees"])
    lists = [model["trees"], model["tree_info"], *([drops["weight_drop"]] if drops else [])]
    if any(len(values_of(each)) != total for each in lists):
        raise ValueError(f"it does not hold {total} trees")
    ends = _ends(document.learner, model)
    wanted = int(best) + 1
    if not 0 < wanted < len(ends) or ends[-1] != total or ends != sorted(ends):
        raise OtherAnswers(
            f"it stopped early (best_iteration {str(best)[:40]}), and which of its {total} trees"
            f" that means is not clear: {CUT}"
        )
    if wanted == len(ends) - 1:
        return None
    return (_cut_json if document.is_json else _cut_ubjson)(
        document, model, drops, wanted, ends[wanted]
    )


def _ensemble(booster: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """The part with the trees, and the part with their weights where there are such (dart)."""
    if "gbtree" in booster:
        return booster["gbtree"]["model"], booster
    return booster["model"], None


def _ends(learner: Mapping[str, Any], model: Mapping[str, Any]) -> list[int]:
    """How many trees there are after each iteration, beginning with 0."""
    if "iteration_indptr" in model:
        return [int(end) for end in values_of(model["iteration_indptr"])]
    parallel = model["gbtree_model_param"].get("num_parallel_tree")
    trees = values_of(model["trees"])
    if not trees or parallel is None:
        return []
    sizes = learner["learner_model_param"]
    groups = max(int(sizes.get("num_class", 0)), int(sizes.get("num_target", 1)), 1)
    if int(trees[0]["tree_param"].get("size_leaf_vector", 1)) > 1:
        groups = 1
    each = groups * int(parallel)
    return list(range(0, len(trees) + 1, each)) if each > 0 else []


def _cut_json(
    document: Document,
    model: Mapping[str, Any],
    drops: Mapping[str, Any] | None,
    iterations: int,
    trees: int,
) -> bytes:
    # What was parsed belongs to nobody else, so it is changed in place.
    whole: Any = model
    whole["trees"], whole["tree_info"] = model["trees"][:trees], model["tree_info"][:trees]
    whole["gbtree_model_param"]["num_trees"] = str(trees)
    if "iteration_indptr" in model:
        whole["iteration_indptr"] = model["iteration_indptr"][: iterations + 1]
    if drops is not None:
        weights: Any = drops
        weights["weight_drop"] = drops["weight_drop"][:trees]
    return json.dumps(document.root, separators=(",", ":")).encode()


def _cut_ubjson(
    document: Document,
    model: Any,
    drops: Any,
    iterations: int,
    trees: int,
) -> bytes:
    data, parameters = document.data, model["gbtree_model_param"]
    changes: dict[Span, bytes] = {
        model.spans["trees"]: first_of(data, model["trees"], trees),
        model.spans["tree_info"]: first_of(data, model["tree_info"], trees),
        parameters.spans["num_trees"]: text(str(trees)),
    }
    if "iteration_indptr" in model:
        changes[model.spans["iteration_indptr"]] = first_of(
            data, model["iteration_indptr"], iterations + 1
        )
    if drops is not None:
        changes[drops.spans["weight_drop"]] = first_of(data, drops["weight_drop"], trees)
    return replace(data, changes)


def refuse_named_categories(document: Document) -> None:
    """Refuse a model that was trained on a table whose categories have names or numbers of their
    own. Its trees compare codes, 0, 1, 2, …, and treelite reads no file that holds such a list.

    Raises:
        OtherAnswers: so it is, with what would work.
    """
    model, _drops = _ensemble(document.learner["gradient_booster"])
    described = model.get("cats") or {}
    if any(len(values_of(described.get(key, []))) for key in ("enc", "feature_segments")):
        raise OtherAnswers(
            "it was trained on a table with columns of categories, which its trees know as 0, 1, 2,"
            " …: train it on the codes, with frame[column].cat.codes in an array (to_numpy) and"
            " 'c' for that column in feature_types"
        )
