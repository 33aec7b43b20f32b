# SPDX-License-Identifier: Apache-2.0
"""Trees and forests of scikit-learn become a treelite checkpoint, which Triton's FIL backend
loads.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ArtifactError
from ..libraries import require
from .boosters import family_of
from .pickle_program import Bag
from .pickled_arrays import Array
from .sklearn_archive import Outline, estimator_of, feature_names, read_outline
from .thresholds import refuse_close_thresholds

_CLASSIFIERS = frozenset(
    {
        "RandomForestClassifier",
        "ExtraTreesClassifier",
        "DecisionTreeClassifier",
        "ExtraTreeClassifier",
    }
)
_REGRESSORS = frozenset(
    {"RandomForestRegressor", "ExtraTreesRegressor", "DecisionTreeRegressor", "ExtraTreeRegressor"}
)
_ONE_TREE = frozenset(
    {"DecisionTreeClassifier", "ExtraTreeClassifier", "DecisionTreeRegressor", "ExtraTreeRegressor"}
)
# As scikit-learn does, so that a class which never occurs does not become minus infinity.
_LEAST_PROBABILITY = 1.1920928955078125e-07
_MOST = 1 << 24
_LARGEST_SINGLE = (2 - 2**-23) * 2.0**127
_IDENTITY_LOSSES = frozenset({"squared_error", "absolute_error", "quantile", "huber", "ls", "lad"})


@dataclass(frozen=True)
class _Node:
    left: int
    right: int
    feature: int
    threshold: float
    missing_left: bool
    value: Any
    """A leaf's; None where the node splits."""


@dataclass(frozen=True)
class _Forest:
    features: int
    task: str
    classes: int
    trees: Sequence[tuple[int, Iterator[_Node]]]
    """Class that the tree votes for (-1: all), and its nodes."""
    base: Sequence[float]
    postprocessor: tuple[str, float]
    vector: int = 1
    average: bool = False


def treelite_bytes(path: str, outline: Outline | None = None) -> bytes:
    """Read an ensemble of scikit-learn and write it as treelite does.

    Args:
        outline: what ``read_outline`` has read already.

    Raises:
        ArtifactError: no trees, or none that FIL can serve, with what would work.
        MissingLibrary: treelite, or numpy.
    """
    with require(
        "treelite", "to turn a forest of scikit-learn into a model for Triton's FIL backend"
    ):
        # Asked for first: without it a large model would be read in vain.
        import treelite
    outline = read_outline(path) if outline is None else outline
    root = outline.root
    origin = root.origin if isinstance(root, Bag) else type(root).__name__
    kind = origin.rpartition(".")[2]
    # Other libraries have classes of the same names.
    is_own = origin.startswith("sklearn.")
    make = next((make for kinds, make in _MAKERS if is_own and kind in kinds), None)
    if make is None:
        raise ArtifactError(
            f"its class is {kind if is_own else origin}, and FIL serves decision trees, random"
            f" forests, extra trees and gradient boosting: {_advice(root)}"
        )
    model = estimator_of(outline, path)
    try:
        _refuse_more_than_the_file(model, outline.room)
        return _serialize(make(model))
    except (*_DAMAGED, treelite.TreeliteError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{path} is no whole model of scikit-learn ({type(error).__name__}: {reason})"
        ) from error


# What Python and numpy raise for values of other kinds and sizes than scikit-learn has there.
_DAMAGED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def _refuse_more_than_the_file(model: Bag, room: int) -> None:
    """A file could name the same tree any number of times."""
    for bag, name in _trees_in(model):
        for array in (bag.values.get("nodes"), bag.values.get("values") if name else None):
            room -= array.nbytes if isinstance(array, Array) else 0
        if room < 0:
            raise ArtifactError(
                "its trees would have more bytes than the file: it is damaged, log the model again"
            )


def _trees_in(model: Bag) -> Iterator[tuple[Bag, str]]:
    """Each tree as often as it is used, and the attribute that it was in."""
    if model.kind in _ONE_TREE:
        stages: list[object] = [model.values]
    else:
        stages = [*_listed(model.values.get("estimators_", model.values.get("_predictors", [])))]
    for stage in stages:
        for each in _listed(stage) if isinstance(stage, (list, tuple)) else [stage]:
            if isinstance(each, (Bag, Mapping)):
                values = each.values if isinstance(each, Bag) else each
                inner = values.get("tree_")
                if isinstance(inner, Bag):
                    yield inner, "tree_"
                elif isinstance(each, Bag):
                    yield each, ""


def _listed(found: object) -> Sequence[Any]:
    """A list, or an array of objects."""
    listed = found.tolist() if isinstance(found, Array) else found
    if not isinstance(listed, (list, tuple)):
        raise TypeError("it has something else in place of a list")
    return listed


def _advice(model: object) -> str:
    """What works instead; each of these is done by a test."""
    origin = model.origin if isinstance(model, Bag) else ""
    if isinstance(model, Bag) and model.kind in _SEARCHES:
        return "log its best_estimator_"
    foreign = _foreign_step(model)
    if foreign:
        return (
            f"log its last step, pipeline[-1], with mlflow.{foreign}.log_model, and send what the"
            " steps before it make of the data"
        )
    if origin.startswith("sklearn."):
        return (
            "convert it with skl2onnx (options={'zipmap': False} for a classifier) and log that"
            " with mlflow.onnx.log_model"
        )
    return (
        "serve it as a Python model of Triton: publish a model folder with a model.py, in whose"
        " environment its library is"
    )


_SEARCHES = frozenset(
    {"GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"}
)


def _foreign_step(model: object) -> str | None:
    """The library of a pipeline's last step, where skl2onnx alone does not know it."""
    steps = model.values.get("steps") if isinstance(model, Bag) else None
    last = steps[-1] if isinstance(steps, list) and steps else None
    return family_of(last[-1]) if isinstance(last, (list, tuple)) and last else None


def _serialize(forest: _Forest) -> bytes:
    from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

    _refuse_sizes(forest)
    trees = list(forest.trees)
    name, alpha = forest.postprocessor
    builder = ModelBuilder(
        threshold_type="float64",
        leaf_output_type="float64",
        metadata=Metadata(
            num_feature=forest.features,
            task_type=forest.task,
            average_tree_output=forest.average,
            num_target=1,
            num_class=[forest.classes],
            leaf_vector_shape=(1, forest.vector),
        ),
        tree_annotation=TreeAnnotation(
            num_tree=len(trees),
            target_id=[0] * len(trees),
            class_id=[group for group, _nodes in trees],
        ),
        postprocessor=PostProcessorFunc(
            name=name, **({"sigmoid_alpha": alpha} if name == "sigmoid" else {})
        ),
        base_scores=[float(score) for score in forest.base],
    )
    for _group, nodes in trees:
        builder.start_tree()
        for key, node in enumerate(nodes):
            builder.start_node(key)
            if node.value is not None:
                builder.leaf(node.value)
            else:
                _refuse_loop(key, node, forest.features)
                builder.numerical_test(
                    node.feature,
                    node.threshold,
                    default_left=node.missing_left,
                    opname="<=",
                    left_child_key=node.left,
                    right_child_key=node.right,
                )
            builder.end_node()
        builder.end_tree()
    return bytes(builder.commit().serialize_bytes())


def _refuse_loop(key: int, node: _Node, features: int) -> None:
    """scikit-learn writes a node before those below it. A server would go round in any other tree
    for ever, and read what lies before its input.
    """
    if not key < min(node.left, node.right) or not 0 <= node.feature < features:
        raise ArtifactError(
            f"node {key} of one of its trees leads back, or asks for a feature that is not there:"
            " the file is damaged, log the model again"
        )


def _refuse_sizes(forest: _Forest) -> None:
    """Numbers which treelite makes room for, or keeps in 32 bits."""
    if not (0 < forest.features < _MOST and 0 < forest.classes < _MOST):
        raise ArtifactError(
            f"it says that it has {forest.features} features and {forest.classes} classes: the file"
            " is damaged, log the model again"
        )


def round_down(threshold: float) -> float:
    """The largest number of single precision that is not above the threshold.

    Triton's input is FP32, so that no comparison comes out otherwise, also where a backend keeps
    thresholds in single precision: rounded to the nearest, one could land on the other side of a
    value.
    """
    try:
        [single] = struct.unpack("<f", struct.pack("<f", threshold))
    except OverflowError:
        return _LARGEST_SINGLE if threshold > 0 else -math.inf
    if not single > threshold:
        return float(single)
    [bits] = struct.unpack("<i", struct.pack("<f", single))
    # Below zero the greater pattern is the smaller number; 0 is followed by the first of those.
    below = bits - 1 if single > 0 else bits + 1 if single < 0 else -(2**31) + 1
    [found] = struct.unpack("<f", struct.pack("<i", below))
    return float(found)


def round_to_nearest(threshold: float) -> float:
    """The nearest number of single precision, the lower of two that are as near.

    HistGradientBoosting compares in double precision, with thresholds that are values of the data
    or lie between two of them. A client's 5.72 is rounded to single precision on its way, so the
    threshold 5.72 has to become the same number; rounded down, it could end below it. Of numbers in
    single precision, whose neighbours may lie on both sides of a threshold halfway, the lower one
    must stay on its side.
    """
    below = round_down(threshold)
    if not abs(threshold) < _LARGEST_SINGLE:
        return below
    [single] = struct.unpack("<f", struct.pack("<f", threshold))
    return float(single) if single - threshold < threshold - below else below


def _tree_nodes(tree: Bag, leaf: Callable[[Any], Any], width: int = 1) -> Iterator[_Node]:
    """
    Args:
        leaf: makes a leaf's value of the row that scikit-learn keeps for it.
        width: how many numbers such a row has at least.
    """
    nodes, values = _array(tree, "nodes"), _array(tree, "values")
    if len(values.shape) != 3 or len(values) < len(nodes) or values.shape[2] < width:
        raise ValueError("its nodes have not the values that they need")
    fields = nodes.dtype.names or ()
    missing = (
        nodes["missing_go_to_left"].tolist() if "missing_go_to_left" in fields else [0] * len(nodes)
    )
    columns = (
        nodes[name].tolist() for name in ("left_child", "right_child", "feature", "threshold")
    )
    for place, (left, right, feature, threshold) in enumerate(zip(*columns)):
        _refuse_no_node(left, right, len(nodes))
        yield _Node(
            left,
            right,
            feature,
            round_down(threshold),
            bool(missing[place]),
            leaf(values[place]) if left < 0 else None,
        )


def _refuse_no_node(left: int, right: int, count: int) -> None:
    """treelite keeps them in 32 bits, where greater ones become others."""
    if max(left, right) >= count:
        raise ValueError(f"a tree of {count} nodes leads to node {max(left, right)}")


def _array(bag: Bag, name: str) -> Any:
    """An attribute's numbers, as numpy has them."""
    found = bag.get(name)
    if not isinstance(found, Array):
        raise TypeError(f"its {bag.kind} has something else in place of '{name}'")
    return found.numpy()


def _number(model: Bag, name: str) -> float:
    """An attribute that is one number, Python's or numpy's."""
    found = model.get(name)
    if isinstance(found, Array) and not found.shape:
        found = found.numpy().item()
    if not isinstance(found, (int, float)):
        raise TypeError(f"its {model.kind} has something else in place of '{name}'")
    return found


def _trees_of(model: Bag) -> list[Bag]:
    if (outputs := _number(model, "n_outputs_")) != 1:
        raise ArtifactError(
            f"its {model.kind} has {outputs} outputs, and one is what can be"
            " served: convert it with skl2onnx and log that with the onnx flavor"
        )
    return (
        [model.get("tree_")]
        if model.kind in _ONE_TREE
        else [each.get("tree_") for each in _listed(model.get("estimators_"))]
    )


def _features(model: Bag) -> int:
    return int(_number(model, "n_features_in_"))


def _classifier(model: Bag) -> _Forest:
    classes = int(_number(model, "n_classes_"))
    if classes < 2:
        raise ArtifactError(f"its {model.kind} knows a single class, so there is nothing to serve")

    def shares(row: Any) -> Any:
        # Up to scikit-learn 1.2 these are counts, since then they are shares already.
        return (row[0, :classes] / (row[0, :classes].sum() or 1.0)).tolist()

    found = _trees_of(model)
    if not found or _array(found[0], "values").shape[-1] < classes:
        raise ValueError(f"its trees have not {classes} classes")
    trees = [(-1, _tree_nodes(tree, shares, classes)) for tree in found]
    return _Forest(
        _features(model),
        "kMultiClf",
        classes,
        trees,
        [0.0] * classes,
        ("identity_multiclass", 1.0),
        classes,
        average=True,
    )


def _regressor(model: Bag) -> _Forest:
    trees = [(0, _tree_nodes(tree, lambda row: float(row[0, 0]))) for tree in _trees_of(model)]
    return _Forest(_features(model), "kRegressor", 1, trees, [0.0], ("identity", 1.0), average=True)


def _boosted_trees(model: Bag) -> list[tuple[int, Iterator[_Node]]]:
    rate = float(_number(model, "learning_rate"))
    trees = []
    for stage in _listed(model.get("estimators_")):
        for group, tree in enumerate(_listed(stage)):
            trees.append(
                (group, _tree_nodes(tree.get("tree_"), lambda row: float(row[0, 0]) * rate))
            )
    return trees


def _boosted_classifier(model: Bag) -> _Forest:
    classes, trees = int(_number(model, "n_classes_")), _boosted_trees(model)
    if classes != max(2, 1 + max((group for group, _nodes in trees), default=0)):
        raise ValueError(f"its trees have not {classes} classes")
    alpha = 2.0 if model.get("loss") == "exponential" else 1.0
    start = model.get("init_")
    if start == "zero":
        priors = None
    elif (
        isinstance(start, Bag)
        and start.kind == "DummyClassifier"
        and start.get("strategy") == "prior"
    ):
        priors = [
            min(max(float(p), _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)
            for p in _array(start, "class_prior_")
        ]
    else:
        raise ArtifactError(
            f"its {model.kind} begins with a model of its own (init), which FIL has no place for:"
            " train it without init"
        )
    if classes == 2:
        base = [math.log(priors[1] / (1 - priors[1])) / alpha] if priors else [0.0]
        return _Forest(_features(model), "kBinaryClf", 1, trees, base, ("sigmoid", alpha))
    base = [math.log(prior) for prior in priors] if priors else [0.0] * classes
    return _Forest(_features(model), "kMultiClf", classes, trees, base, ("softmax", 1.0))


def _boosted_regressor(model: Bag) -> _Forest:
    start = model.get("init_")
    if start == "zero":
        base = 0.0
    elif isinstance(start, Bag) and start.kind == "DummyRegressor":
        base = float(_array(start, "constant_").ravel()[0])
    else:
        raise ArtifactError(
            f"its {model.kind} begins with a model of its own (init), which FIL has no place for:"
            " train it without init"
        )
    return _Forest(
        _features(model), "kRegressor", 1, _boosted_trees(model), [base], ("identity", 1.0)
    )


def _histogram_columns(model: Bag) -> Sequence[int]:
    """The column of the input that each feature of the trees is."""
    count = int(_number(model, "_n_features"))
    # Before scikit-learn 1.4 there was none, and every column stayed where it was.
    if model.values.get("_preprocessor") is None:
        return range(count)
    categorical = [bool(flag) for flag in _flags(model)]
    if len(categorical) != count:
        raise ArtifactError(
            f"its {model.kind} makes {count} features of {len(categorical)} columns, by rules of an"
            " unknown version of scikit-learn"
        )
    # The others follow those with categories; both keep their order.
    return sorted(range(count), key=lambda column: not categorical[column])


def _flags(model: Bag) -> Sequence[Any]:
    found = model.get("is_categorical_")
    if found is None:  # none is
        return ()
    flags: Sequence[Any] = _listed(found)
    return flags


def _histogram_nodes(nodes: Any, columns_of: Sequence[int]) -> Iterator[_Node]:
    if "is_categorical" in (nodes.dtype.names or ()) and nodes["is_categorical"].any():
        raise ArtifactError(
            "it splits by categories, which is not converted: train it with"
            " categorical_features=None on columns that are numbers (OneHotEncoder or"
            " OrdinalEncoder), and send those"
        )
    columns = [
        nodes[name].tolist()
        for name in (
            "left",
            "right",
            "feature_idx",
            "num_threshold",
            "missing_go_to_left",
            "value",
            "is_leaf",
        )
    ]
    for left, right, feature, threshold, missing, value, is_leaf in zip(*columns):
        if not is_leaf:
            _refuse_no_node(left, right, len(nodes))
        yield _Node(
            left,
            right,
            columns_of[feature],
            round_to_nearest(threshold),
            bool(missing),
            float(value) if is_leaf else None,
        )


def _refuse_close_thresholds(model: Bag, columns_of: Sequence[int]) -> None:
    """Only what compares in double precision tells more apart than Triton's input does."""
    names = feature_names(model)
    columns: dict[str, set[float]] = {}
    for stage in _listed(model.get("_predictors")):
        for tree in _listed(stage):
            nodes = _array(tree, "nodes")
            splits = nodes[nodes["is_leaf"] == 0]
            for feature, threshold in zip(
                splits["feature_idx"].tolist(), splits["num_threshold"].tolist()
            ):
                column = columns_of[feature]
                name = f"column '{names[column]}'" if column < len(names) else f"column {column}"
                columns.setdefault(name, set()).add(threshold)
    refuse_close_thresholds(columns)


def _baseline(model: Bag) -> list[float]:
    found = model.get("_baseline_prediction")
    if isinstance(found, Array):
        return [float(score) for score in found.numpy().ravel()]
    return [float(_number(model, "_baseline_prediction"))]


def _histogram(model: Bag) -> _Forest:
    columns = _histogram_columns(model)
    _refuse_close_thresholds(model, columns)
    trees = [
        (group, _histogram_nodes(_array(tree, "nodes"), columns))
        for stage in _listed(model.get("_predictors"))
        for group, tree in enumerate(_listed(stage))
    ]
    base = _baseline(model)
    features = len(columns)
    if model.kind.endswith("Regressor"):
        loss = model.get("loss") if isinstance(model.get("loss"), str) else "one of its own"
        if loss not in _IDENTITY_LOSSES | {"poisson", "gamma"}:
            raise ArtifactError(
                f"its loss is {loss}, which is not known here: train it with"
                f" {', '.join(sorted(_IDENTITY_LOSSES - {'ls', 'lad'}))}, poisson or gamma"
            )
        return _Forest(
            features,
            "kRegressor",
            1,
            trees,
            base,
            ("identity" if loss in _IDENTITY_LOSSES else "exponential", 1.0),
        )
    if len(base) == 1:
        return _Forest(features, "kBinaryClf", 1, trees, base, ("sigmoid", 1.0))
    return _Forest(features, "kMultiClf", len(base), trees, base, ("softmax", 1.0))


_MAKERS: tuple[tuple[frozenset[str], Callable[[Bag], _Forest]], ...] = (
    (_CLASSIFIERS, _classifier),
    (_REGRESSORS, _regressor),
    (frozenset({"GradientBoostingClassifier"}), _boosted_classifier),
    (frozenset({"GradientBoostingRegressor"}), _boosted_regressor),
    (frozenset({"HistGradientBoostingClassifier", "HistGradientBoostingRegressor"}), _histogram),
)


def knows_class(name: str) -> bool:
    """Whether a class, with its module as MLmodel has it, is one that can be converted."""
    module, _dot, kind = name.rpartition(".")
    return module.startswith("sklearn.") and any(kind in kinds for kinds, _make in _MAKERS)
