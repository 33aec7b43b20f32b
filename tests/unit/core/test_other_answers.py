# SPDX-License-Identifier: Apache-2.0
"""Files that a server would answer other numbers for than the library that trained them: mended, or
refused. tests/differential compares with the libraries themselves.
"""

from __future__ import annotations

import json
import math
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import (
    Artifact,
    Layout,
    Numbering,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    FileEntry,
    Manifest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    OtherAnswers,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.conversion import (
    convert,
    refuse_other_answers,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.layouts import (
    layout_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.pickle_program import (
    Bag,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.sklearn_to_treelite import (  # noqa: E501
    _histogram_columns,
    round_down,
    round_to_nearest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.thresholds import (
    refuse_close_thresholds,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.trees import (
    read_forest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.ubjson import (
    read_ubjson,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.local_model import (  # noqa: E501
    read_local_model,
)
from hypothesis import example, given
from hypothesis import strategies as st
from support import models

pytest.importorskip("tritonclient")

STUMPS = tuple((0, float(split), -1.0, 1.0, 0) for split in range(6))
FIL = 'backend: "fil"\nparameters { key: "model_type" value { string_value: "%s" } }\n'
LIGHTGBM = (
    "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=4\nobjective=regression"
    "\n\nTree=0\nnum_leaves=3\nnum_cat={cat}\nsplit_feature=0 1\nthreshold={thresholds}\n"
    "decision_type={kinds}\nis_linear={linear}\n\nend of trees\n\npandas_categorical:{pandas}\n"
)


def stopped(best: object = 2, *, scikit_learn: bool = True, parallel: int = 1) -> dict[str, Any]:
    document = models.xgboost_document(STUMPS)
    model = document["learner"]["gradient_booster"]["model"]
    model["gbtree_model_param"]["num_parallel_tree"] = str(parallel)
    model["iteration_indptr"] = list(range(0, 7, parallel))
    document["learner"]["attributes"] = {"best_iteration": str(best)}
    if scikit_learn:
        document["learner"]["attributes"]["scikit_learn"] = "{}"
    return document


def dart(document: dict[str, Any]) -> dict[str, Any]:
    inner = document["learner"]["gradient_booster"]
    document["learner"]["gradient_booster"] = {
        "name": "dart",
        "gbtree": inner,
        "weight_drop": [0.5] * 6,
    }
    return document


def written(path: Path, document: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        models.ubjson(document) if path.suffix == ".ubj" else json.dumps(document).encode()
    )
    return path


def trees_in(data: bytes) -> int:
    """The number of trees, which every part of the file agrees on."""
    document = json.loads(data) if data[1:2] == b'"' else read_ubjson(data)
    booster = document["learner"]["gradient_booster"]
    model = booster.get("gbtree", booster)["model"]
    count = int(model["gbtree_model_param"]["num_trees"])
    assert (len(model["trees"]), len(model["tree_info"])) == (count, count)
    assert model.get("iteration_indptr", [count])[-1] == count
    assert len(booster.get("weight_drop", [0] * count)) == count
    return count


def converted(folder: Path, document: dict[str, Any], name: str, model_class: str | None) -> bytes:
    path = written(folder / "1" / name, document)
    entry = {"data": name, **({"model_class": model_class} if model_class else {})}
    artifact = Artifact({name: 1}, (), {"flavors": {"xgboost": entry}}, None, lambda _path: b"")
    layout = layout_of(artifact, None, Numbering("auto", 1, False))
    manifest = Manifest.of([FileEntry(f"1/{name}", path.stat().st_size, "")])
    _layout, made = convert(layout, str(folder), manifest)
    [one] = made.files
    data = (folder / one.path).read_bytes()
    assert one.size == len(data)
    return data


FILES = ["model.json", "model.ubj"]
SCIKIT_LEARN, BOOSTER = "xgboost.sklearn.XGBClassifier", "xgboost.core.Booster"


class TestXgboostThatStoppedEarly:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize(
        ("document", "model_class", "trees"),
        [
            (stopped(), SCIKIT_LEARN, 3),
            (stopped(0), SCIKIT_LEARN, 1),
            (stopped(5), SCIKIT_LEARN, 6),
            (stopped(1, parallel=2), SCIKIT_LEARN, 4),
            (dart(stopped()), SCIKIT_LEARN, 3),
            # Who answers is what MLmodel says, whatever class saved the file.
            (stopped(scikit_learn=False), SCIKIT_LEARN, 3),
            (stopped(), "xgboost.dask.DaskXGBClassifier", 3),
            (stopped(), BOOSTER, 6),
            (stopped(), None, 3),
            (stopped(scikit_learn=False), None, 6),
            (models.xgboost_document(STUMPS), SCIKIT_LEARN, 6),
        ],
    )
    def test_a_logged_one_is_served_with_the_trees_its_class_uses(
        self,
        tmp_path: Path,
        name: str,
        document: dict[str, Any],
        model_class: str | None,
        trees: int,
    ) -> None:
        assert trees_in(converted(tmp_path, document, name, model_class)) == trees

    @pytest.mark.parametrize("name", FILES)
    def test_files_without_iterations_count_trees_for_each_class(
        self, tmp_path: Path, name: str
    ) -> None:
        document = stopped(0)
        del document["learner"]["gradient_booster"]["model"]["iteration_indptr"]
        document["learner"]["learner_model_param"]["num_class"] = "3"
        assert trees_in(converted(tmp_path, document, name, SCIKIT_LEARN)) == 3

    @pytest.mark.parametrize("name", FILES)
    def test_a_bare_file_is_published_without_the_others(self, tmp_path: Path, name: str) -> None:
        for document, trees in ((stopped(), 3), (stopped(scikit_learn=False), 6)):
            model = read_local_model(str(written(tmp_path / name, document)), "net")
            [piece] = [piece for path, piece in model.pieces.items() if path.startswith("1/")]
            data = Path(piece.file).read_bytes() if piece.file else piece.data
            assert trees_in(data) == trees
        assert trees_in((tmp_path / name).read_bytes()) == 6

    def test_what_is_left_is_left_byte_for_byte(self, tmp_path: Path) -> None:
        forest = read_forest(str(written(tmp_path / "a.ubj", stopped())), "xgboost")
        assert forest.instead is not None
        whole, cut = read_ubjson((tmp_path / "a.ubj").read_bytes()), read_ubjson(forest.instead)
        assert cut["learner"]["attributes"] == whole["learner"]["attributes"]
        model = whole["learner"]["gradient_booster"]["model"]
        assert cut["learner"]["gradient_booster"]["model"]["trees"] == model["trees"][:3]

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("best", [6, -1, 99])
    def test_an_iteration_that_is_not_there_is_refused(
        self, tmp_path: Path, name: str, best: int
    ) -> None:
        with pytest.raises(OtherAnswers, match="is not clear: take the trees that count"):
            read_forest(str(written(tmp_path / name, stopped(best))), "xgboost")

    @pytest.mark.parametrize("name", FILES)
    def test_a_damaged_one_is_refused(self, tmp_path: Path, name: str) -> None:
        for key, value in (
            ("iteration_indptr", [0, 6, 3, 6]),
            ("iteration_indptr", {"a": 1}),
            ("iteration_indptr", []),
            ("trees", 7),
            ("gbtree_model_param", {}),
        ):
            document = stopped()
            document["learner"]["gradient_booster"]["model"][key] = value
            with pytest.raises(ArtifactError):
                read_forest(str(written(tmp_path / name, document)), "xgboost")
        with pytest.raises(ArtifactError, match="not a whole XGBoost model"):
            read_forest(str(written(tmp_path / name, stopped("soon"))), "xgboost")

    def test_the_old_binary_format_is_refused(self, tmp_path: Path) -> None:
        def text(value: str) -> bytes:
            return struct.pack("<Q", len(value)) + value.encode()

        head = b"binf" + struct.pack("<fIi", 0.5, 4, 0).ljust(136, b"\0")
        body = text("binary:logistic") + text("gbtree") + bytes(500)
        path = tmp_path / "model.bst"
        for attributes, refused in (
            (("best_iteration", "scikit_learn"), True),
            (("best_iteration",), False),
            (("scikit_learn",), False),
        ):
            tail = b"".join(text(name) + text("3") for name in attributes)
            path.write_bytes(head + body + struct.pack("<Q", len(attributes)) + tail)
            if refused:
                with pytest.raises(OtherAnswers, match=r"model.save_model\('model.ubj'\)"):
                    read_forest(str(path), "xgboost")
            else:
                assert read_forest(str(path), "xgboost").features == 4

    @pytest.mark.parametrize("name", ["xgboost.json", "xgboost.ubj"])
    def test_a_folder_is_refused_when_it_is_published_and_when_it_is_deployed(
        self, tmp_path: Path, name: str
    ) -> None:
        folder = tmp_path / "net"
        config = FIL % name.replace(".", "_")
        for document, refused in ((stopped(), True), (stopped(scikit_learn=False), False)):
            written(folder / "1" / name, document)
            (folder / "config.pbtxt").write_text(config, encoding="utf-8")
            layout = Layout(
                "triton", ((f"net/1/{name}", f"1/{name}", 1),), (), config.encode(), (1,), (1,)
            )
            if refused:
                with pytest.raises(OtherAnswers, match="best_iteration"):
                    read_local_model(str(folder), "net")
                with pytest.raises(OtherAnswers, match=f"^read the model: 1/{name} was saved by"):
                    refuse_other_answers(layout, str(folder))
            else:
                read_local_model(str(folder), "net")
                refuse_other_answers(layout, str(folder))

    def test_a_folder_that_cannot_be_read_is_the_servers_to_judge(self, tmp_path: Path) -> None:
        (tmp_path / "1").mkdir()
        (tmp_path / "1/xgboost.json").write_bytes(b"{")
        config = (FIL % "xgboost_json").encode()
        files = (("1/xgboost.json", "1/xgboost.json", 1),)
        refuse_other_answers(Layout("triton", files, (), config, (1,), (1,)), str(tmp_path))


@pytest.mark.parametrize("name", FILES)
def test_xgboost_with_categories_of_a_table(tmp_path: Path, name: str) -> None:
    document = models.xgboost_document()
    model = document["learner"]["gradient_booster"]["model"]
    model["cats"] = {"enc": [], "feature_segments": [], "sorted_idx": []}
    read_forest(str(written(tmp_path / name, document)), "xgboost")
    encoded = {"offsets": [0, 1, 2], "values": [97, 98]}
    model["cats"] = {"enc": [encoded], "feature_segments": [0, 2], "sorted_idx": [0, 1]}
    with pytest.raises(OtherAnswers, match=r"cat\.codes in an array"):
        read_forest(str(written(tmp_path / name, document)), "xgboost")


class TestLightgbm:
    @pytest.mark.parametrize(
        ("kinds", "thresholds", "refused"),
        [
            ("8 10", "0.5 -0.5", False),
            ("4 2", "0.5 -0.5", True),
            ("6 4", "0.5 -0.5", False),
            ("6 6", "0.5 -0.5", True),
            ("6 4", "1e-36 -0.5", True),
            ("6 4", "1.0000000180025095e-35 -1.0000000180025095e-35", True),
            ("6 4", "1.0000000180025095e-35 -1.0000000180025097e-35", False),
            ("0 2", "0.5 -0.5", False),
            ("5 2", "0 -0.5", False),
        ],
    )
    def test_a_zero_that_counts_as_missing(
        self, tmp_path: Path, kinds: str, thresholds: str, refused: bool
    ) -> None:
        text = LIGHTGBM.format(cat=0, thresholds=thresholds, kinds=kinds, linear=0, pandas="null")
        path = tmp_path / "model.txt"
        path.write_text(text, encoding="utf-8")
        if not refused:
            assert read_forest(str(path), "lightgbm").features == 5
            return
        with pytest.raises(OtherAnswers, match="zero_as_missing"):
            read_forest(str(path), "lightgbm")
        folder = tmp_path / "net"
        (folder / "1").mkdir(parents=True)
        path.rename(folder / "1/model.txt")
        (folder / "config.pbtxt").write_text(FIL % "lightgbm", encoding="utf-8")
        with pytest.raises(OtherAnswers, match="zero_as_missing"):
            read_local_model(str(folder), "net")

    @pytest.mark.parametrize(
        ("features", "thresholds", "kinds", "refused"),
        [
            ("0 0", "1700000015.5000002 1700000031.5000002", "2 2", True),
            ("0 1", "1700000015.5000002 1700000031.5000002", "2 2", False),
            # Codes of categories are no thresholds.
            ("0 0", "1700000015.5000002 1700000031.5000002", "2 3", False),
            ("0 0", "1700000064.0000002 1700000192.0000002", "2 2", False),
            ("0 0", "1700000015.5000002 1700000815.5000002", "2 2", False),
            ("0 0", "49999.995000000003 50000.005000000005", "2 2", False),
            ("0 0", "199999.00500000003 199999.01500000004", "2 2", True),
            ("0 0", "-1.0000000180025095e-35 1.0000000180025095e-35", "2 2", False),
            ("0 0", "0.1234567890123 0.1234567890124", "2 2", True),
        ],
    )
    def test_thresholds_that_single_precision_does_not_tell_apart(
        self, tmp_path: Path, features: str, thresholds: str, kinds: str, refused: bool
    ) -> None:
        text = LIGHTGBM.format(cat=0, thresholds=thresholds, kinds=kinds, linear=0, pandas="null")
        text = text.replace("split_feature=0 1", f"split_feature={features}")
        text = text.replace("objective=", "feature_names=when b c d e\nobjective=")
        folder = tmp_path / "net"
        (folder / "1").mkdir(parents=True)
        path = folder / "1/model.txt"
        path.write_text(text, encoding="utf-8")
        (folder / "config.pbtxt").write_text(FIL % "lightgbm", encoding="utf-8")
        if not refused:
            assert read_forest(str(path), "lightgbm").features == 5
            read_local_model(str(folder), "net")
            return
        low, high = (repr(float(word)) for word in thresholds.split())
        with pytest.raises(OtherAnswers, match=f"{low} and {high} of column 'when' apart"):
            read_forest(str(path), "lightgbm")
        with pytest.raises(OtherAnswers, match=r"X\.astype\('float32'\)"):
            read_local_model(str(folder), "net")
        layout = Layout(
            "triton",
            (("net/1/model.txt", "1/model.txt", 1),),
            (),
            (FIL % "lightgbm").encode(),
            (1,),
            (1,),
        )
        with pytest.raises(OtherAnswers, match=r"^read the model: 1/model\.txt cannot be served"):
            refuse_other_answers(layout, str(folder))

    def test_linear_leaves(self, tmp_path: Path) -> None:
        text = LIGHTGBM.format(cat=0, thresholds="1 2", kinds="2 2", linear=1, pandas="null")
        (tmp_path / "model.txt").write_text(text, encoding="utf-8")
        with pytest.raises(OtherAnswers, match="linear_tree=False"):
            read_forest(str(tmp_path / "model.txt"), "lightgbm")

    @pytest.mark.parametrize(
        ("kinds", "pandas", "refused"),
        [
            ("1 2", "[[10, 20]]", True),
            ("1 2", '[["a", "b"], [1, 0]]', True),
            ("1 2", '[["1", "2"]]', True),
            ("1 2", '[["0", "1"], ["a", "1.0"]]', False),
            ("1 2", '[["a", "2"]]', True),
            ("1 2", '[["green", "nan", "inf", "1_0"]]', False),
            ("2 2", "[[10, 20]]", False),
            ("1 2", '[["a", "b"], [0, 1], [false, true]]', False),
            ("1 2", "null", False),
        ],
    )
    def test_categories_that_are_other_numbers_than_its_codes(
        self, tmp_path: Path, kinds: str, pandas: str, refused: bool
    ) -> None:
        text = LIGHTGBM.format(cat=1, thresholds="0 2", kinds=kinds, linear=0, pandas=pandas)
        (tmp_path / "model.txt").write_text(text, encoding="utf-8")
        if refused:
            with pytest.raises(OtherAnswers, match=r"cat\.codes"):
                read_forest(str(tmp_path / "model.txt"), "lightgbm")
        else:
            read_forest(str(tmp_path / "model.txt"), "lightgbm")


def histogram(**values: object) -> Bag:
    return Bag("sklearn.ensemble.HistGradientBoostingRegressor", (), values)


def test_columns_of_a_histogram_model_are_put_back() -> None:
    flags = [False, True, False, True]
    model = histogram(_n_features=4, _preprocessor=Bag("x"), is_categorical_=flags)
    assert list(_histogram_columns(model)) == [1, 3, 0, 2]
    for untouched in (
        histogram(_n_features=4, is_categorical_=flags),
        histogram(_n_features=4, _preprocessor=None, is_categorical_=None),
    ):
        assert list(_histogram_columns(untouched)) == [0, 1, 2, 3]
    with pytest.raises(ArtifactError, match="unknown version"):
        _histogram_columns(histogram(_n_features=5, _preprocessor=1, is_categorical_=flags))


SINGLES = st.floats(width=32, allow_nan=False)


@given(threshold=st.one_of(st.floats(allow_nan=False), SINGLES), value=SINGLES)
@example(threshold=-1e-60, value=0.0)
@example(threshold=-1e-60, value=-(2.0**-149))
@example(threshold=1e300, value=float("inf"))
@example(threshold=-1e300, value=float("-inf"))
@example(threshold=0.1, value=struct.unpack("<f", struct.pack("<f", 0.1))[0])
def test_a_threshold_in_single_precision_decides_the_same(threshold: float, value: float) -> None:
    rounded = round_down(threshold)
    assert struct.unpack("<f", struct.pack("<f", rounded))[0] == rounded
    assert (value <= rounded) == (value <= threshold)


@given(threshold=st.one_of(st.floats(allow_nan=False), SINGLES))
@example(threshold=5.72)
@example(threshold=-1e-60)
@example(threshold=1e300)
@example(threshold=-1e300)
def test_a_threshold_is_rounded_as_a_client_rounds_the_same_number(threshold: float) -> None:
    rounded, sent = round_to_nearest(threshold), in_single_precision(threshold)
    low, high = round_down(threshold), -round_down(-threshold)
    if math.isinf(sent) or threshold - low == high - threshold:
        assert rounded == low
    else:
        assert rounded == sent


def in_single_precision(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def test_a_threshold_halfway_keeps_both_neighbours_on_their_sides() -> None:
    for number in (1.0, 1.5, -1.0, -2.0, 5.72, 1e30, 2.0**-149, -(2.0**-149), 2.0**-126):
        low = in_single_precision(number)
        bits = struct.unpack("<i", struct.pack("<f", low))[0]
        high = struct.unpack("<f", struct.pack("<i", bits + (1 if low > 0 else -1)))[0]
        threshold = (low + high) / 2
        assert low <= round_to_nearest(threshold) < high


@st.composite
def neighbours(draw: st.DrawFn) -> list[float]:
    """Numbers of single precision, most of them next to each other, also around powers of two."""
    powers = st.integers(-149, 127).map(lambda power: math.ldexp(1.0, power))
    start = in_single_precision(draw(st.one_of(powers, SINGLES)))
    bits = struct.unpack("<i", struct.pack("<f", 0.0 if math.isinf(start) else abs(start)))[0]
    offsets = draw(st.lists(st.integers(-20, 20), min_size=2, max_size=30))
    places = [min(max(bits + offset, 0), 0x7F7FFFFF) for offset in offsets]
    sign = draw(st.sampled_from([1, -1]))
    return [sign * struct.unpack("<f", struct.pack("<i", place))[0] for place in places]


def between(values: list[float]) -> list[float]:
    """Thresholds as LightGBM has them, the next numbers above those halfway, and the others."""
    ordered = sorted(set(values))
    halfway = [(low + high) / 2 for low, high in pairwise(ordered)]
    return [*halfway, *(math.nextafter(number, math.inf) for number in halfway), *ordered]


@given(values=neighbours())
def test_thresholds_of_data_in_single_precision_are_never_refused(values: list[float]) -> None:
    refuse_close_thresholds({"column 0": between(values)})


@given(
    start=st.integers(-(2**23), 2**23),
    gaps=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    digits=st.integers(0, 6),
)
def test_thresholds_of_decimals_that_single_precision_keeps_apart_are_never_refused(
    start: int, gaps: list[int], digits: int
) -> None:
    values = [(start + sum(gaps[:place])) / 10**digits for place in range(len(gaps))]
    refuse_close_thresholds({"column 0": between(values)})


def test_thresholds_of_several_trainings_may_be_close_by_chance() -> None:
    many = [place / 1000 + 1e-9 / 3 for place in range(600)]
    refuse_close_thresholds({"a": [*many, math.nextafter(many[7], 1), math.nextafter(many[9], 1)]})
    with pytest.raises(OtherAnswers, match="of a apart"):
        refuse_close_thresholds({"a": [*many, *(math.nextafter(each, 1) for each in many[:9])]})
    with pytest.raises(OtherAnswers, match="of b apart"):
        refuse_close_thresholds({"a": many[:9], "b": [many[0], math.nextafter(many[0], 1)]})


def test_thresholds_that_are_no_numbers_are_close_to_none() -> None:
    refuse_close_thresholds({"a": [math.inf, -math.inf, math.nan, 1e300, 0.0, -0.0]})
