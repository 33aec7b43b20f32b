# SPDX-License-Identifier: Apache-2.0
"""A table is asked in the order of the model's columns, which its configuration remembers."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import (
    Artifact,
    Layout,
    Numbering,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    FileEntry,
    Manifest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.verification import (
    judge_example,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.conversion import (
    convert,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.layouts import (
    layout_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.default_config import (
    forest_config,
    onnx_config,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.mlmodel import (
    columns_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.onnx import (
    OnnxFile,
    OnnxTensor,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.pickle_program import (
    Bag,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.sklearn_archive import (  # noqa: E501
    feature_names,
    read_outline,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.trees import (
    ForestFile,
    read_forest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.local_model import (  # noqa: E501
    read_local_model,
)
from support.models import xgboost_document

numpy = pytest.importorskip("numpy")
pytest.importorskip("tritonclient")

from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.inference import (  # noqa: E402
    interface_of,
    interface_of_text,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.triton.tensors import (  # noqa: E402
    Tensor,
    arrays_of,
)

X = {"x": Tensor("x", "FP32", (-1, 3), numpy.dtype("float32"), ("a", "b", "c"))}
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
COLUMNS = ("age", "fare", "sib sp", "class")


def found(values: Any) -> Any:
    return arrays_of(values, X)["x"][1].tolist()


def tables(columns: Sequence[Any], rows: list[list[Any]]) -> list[Any]:
    """One table in all forms that have names."""
    pandas = pytest.importorskip("pandas")
    split = {"columns": [*columns], "data": rows}
    records = [dict(zip(columns, row)) for row in rows]
    return [
        pandas.DataFrame(rows, columns=[*columns]),
        split,
        {"dataframe_split": split},
        {"dataframe_records": records},
        {"instances": records},
        pandas.read_json(io.StringIO(json.dumps({"instances": records}))),
        json.dumps({"dataframe_split": split}),
    ]


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        (["a", "b", "c"], [0, 1, 2]),
        (["c", "a", "b"], [2, 0, 1]),
        (["c", "more", "a", "b"], [2, 0, 0, 1]),
    ],
)
def test_a_table_is_asked_in_the_order_of_the_model(columns: list[str], order: list[int]) -> None:
    for table in tables(columns, [[row[place] for place in order] for row in ROWS]):
        assert found(table) == ROWS


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["a", "b", "z"], r"no column c, and has z, .*name its columns .*\(a, b, c\).*to_numpy"),
        (["u", "v", "w"], "no column a, b, c, and has u, v, w"),
        (["a", "b"], "no column c: name"),
        (["2", "1", "0"], "no column a, b, c"),
    ],
)
def test_a_table_with_other_names_is_refused(columns: list[str], words: str) -> None:
    for table in tables(columns, [[1.0] * len(columns)] * 2):
        with pytest.raises(InvalidOption, match=words):
            found(table)


def test_what_has_no_names_is_taken_as_it_stands() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS)
    unnamed: list[Any] = [frame, pandas.DataFrame(ROWS, columns=[7, 8, 9]), frame.to_numpy(), ROWS]
    unnamed += [{"data": ROWS}, {"instances": ROWS}, {"dataframe_split": {"data": ROWS}}]
    unnamed += [{"columns": [0, 1, 2], "data": ROWS}, {"columns": ["0", "1", "2"], "data": ROWS}]
    unnamed += [pandas.DataFrame(ROWS, columns=numpy.array([7, 8, 9], object))]
    unnamed += [pandas.DataFrame(ROWS, columns=[numpy.int64(7), numpy.int64(8), 9])]
    # One column that holds whole rows.
    unnamed += [pandas.DataFrame({"rows": ROWS}), {"instances": [{"rows": row} for row in ROWS]}]
    unnamed += [pandas.DataFrame({"rows": [numpy.array(row) for row in ROWS]})]
    for values in unnamed:
        assert numpy.reshape(found(values), (2, 3)).tolist() == ROWS


def test_models_without_names_take_tables_by_position() -> None:
    plain = {"x": dataclasses.replace(X["x"], columns=())}
    for table in tables(["c", "a", "b"], ROWS):
        assert arrays_of(table, plain)["x"][1].tolist() == ROWS


def test_names_that_are_there_twice_or_with_underscores() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InvalidOption, match="two columns called b"):
        found(pandas.DataFrame([[1, 2, 3, 4]], columns=["a", "b", "b", "c"]))
    spaces = {"x": dataclasses.replace(X["x"], columns=("a_1", "b_1", "c"))}
    frame = pandas.DataFrame([[3, 2, 1]], columns=["c", "b 1", "a 1"])
    assert arrays_of(frame, spaces)["x"][1].tolist() == [[1, 2, 3]]
    whole = {"x": dataclasses.replace(X["x"], columns=("0", "1", "2"))}
    frame = pandas.DataFrame([[3, 1, 2]], columns=[2, 0, 1])
    assert arrays_of(frame, whole)["x"][1].tolist() == [[1, 2, 3]]


def test_values_keep_their_columns_kinds() -> None:
    pandas = pytest.importorskip("pandas")
    whole = {"x": Tensor("x", "INT64", (-1, 2), numpy.dtype("int64"), ("a", "b"))}
    frame = pandas.DataFrame({"b": [1.0], "a": [2**53 + 1], "note": ["left out"]})
    assert arrays_of(frame, whole)["x"][1].tolist() == [[2**53 + 1, 1]]


# -- what a configuration remembers ----------------------------------------------------------------


def remembered(config: Any) -> tuple[str, ...]:
    """As predict reads it, of what a server shows."""
    (tensor,) = interface_of_text(config_pbtxt.render(config)).inputs.values()
    return tensor.columns


def signature(*specs: dict[str, Any]) -> dict[str, Any]:
    return {"signature": {"inputs": json.dumps(specs)}}


def columns(*names: Any) -> dict[str, Any]:
    return signature(*({"type": "double", "name": name, "required": True} for name in names))


def test_a_forest_s_configuration_names_its_columns() -> None:
    forest = ForestFile("xgboost_ubj", 4, "regression")
    for names in (COLUMNS, ("ä", '"', "\\", "\n")):
        config = forest_config(forest, names)
        assert remembered(config) == names
        assert config_pbtxt.render(config) == config_pbtxt.render(forest_config(forest, names))
    too_long = tuple(f"{number}{'x' * 20000}" for number in range(4))
    for left_out in ((), ("a", "b"), too_long):
        assert forest_config(forest, left_out) == forest_config(forest)
        assert remembered(forest_config(forest, left_out)) == ()


def test_an_onnx_model_with_rows_remembers_them_too() -> None:
    def model(*inputs: tuple[int, ...]) -> OnnxFile:
        tensors = tuple(
            OnnxTensor(f"x{place}", "TYPE_FP32", dims) for place, dims in enumerate(inputs)
        )
        return OnnxFile(tensors, (OnnxTensor("y", "TYPE_FP32", (-1,)),), ())

    for dims in ((-1, 4), (-1, -1)):
        assert remembered(onnx_config(model(dims), "m.onnx", COLUMNS)) == COLUMNS
    for inputs in ([(-1, 3)], [(-1, 4), (-1, 4)], [(-1, 4, 1)], [(4,)]):
        config = onnx_config(model(*inputs), "m.onnx", COLUMNS)
        assert config == onnx_config(model(*inputs), "m.onnx")


def test_a_parameter_that_fits_nothing_is_no_names() -> None:
    for text in ("", "x", "3", '{"a": 1}', "[1, 2, 3]", '["a"]'):
        config = {
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}],
            "parameters": {config_pbtxt.COLUMNS_KEY: {"string_value": text}},
        }
        assert interface_of(config).inputs["x"].columns == ()


@pytest.mark.parametrize(
    ("mlmodel", "names"),
    [
        (columns("b", "a"), ("b", "a")),
        (columns("a", "a"), ()),
        (columns(0, 1), ()),
        (signature({"type": "double"}), ()),
        (signature({"type": "tensor", "tensor-spec": {}, "name": "x"}), ()),
        ({"signature": {"inputs": "no json"}}, ()),
        ({"signature": {"inputs": "[3]"}}, ()),
        ({"signature": None}, ()),
        (None, ()),
    ],
)
def test_a_signature_names_columns(mlmodel: Any, names: tuple[str, ...]) -> None:
    assert columns_of(mlmodel) == names


def test_files_name_their_features(tmp_path: Path) -> None:
    document = xgboost_document()
    for given, names in ((list(COLUMNS), COLUMNS), ([], ()), (["a"] * 4, ()), (None, ())):
        document["learner"]["feature_names"] = given
        path = tmp_path / "model.json"
        path.write_text(json.dumps(document))
        assert read_forest(str(path), "xgboost").names == names


def test_an_estimator_names_its_features(tmp_path: Path) -> None:
    file = tmp_path / "names.pkl"
    for given, names in (
        (numpy.array(["b", "a"], object), ("b", "a")),
        (numpy.array(["b", "a"]), ("b", "a")),
        (numpy.array([["b", "a"]]), ()),
        (numpy.array([1.0]), ()),
        (["b", "a"], ("b", "a")),
        ([1, 2], ()),
        (None, ()),
    ):
        file.write_bytes(pickle.dumps(given))
        read = read_outline(str(file)).root
        made = Bag("sklearn.ensemble.RandomForestRegressor", (), {"feature_names_in_": read})
        assert feature_names(made) == names
    assert feature_names([1]) == ()


def converted(
    folder: Path, mlmodel: dict[str, Any], names: Sequence[str] = (), example: Any = None
) -> Layout:
    """An artifact with a model of XGBoost, as it lies in staging."""
    document = xgboost_document()
    document["learner"]["feature_names"] = [*names]
    os.makedirs(folder / "1", exist_ok=True)
    path = folder / "1" / "model.json"
    path.write_text(json.dumps(document))
    files: dict[str, int | None] = {"model.json": path.stat().st_size}
    if example is not None:
        files["input_example.json"] = 100
    flavor = {"flavors": {"xgboost": {"data": "model.json"}}}
    layout = layout_of(
        Artifact(files, (), flavor | mlmodel, None, lambda _name: json.dumps(example).encode()),
        None,
        Numbering("auto", 1, False),
    )
    came = Manifest.of([FileEntry("1/model.json", path.stat().st_size, "0" * 64)])
    made, _manifest = convert(layout, str(folder), came)
    return made


@pytest.mark.parametrize(
    ("signed", "names", "wanted"),
    [
        (COLUMNS, (), COLUMNS),
        ((), COLUMNS, COLUMNS),
        (COLUMNS, ("p", "q", "r", "s"), COLUMNS),
        (COLUMNS, COLUMNS[::-1], COLUMNS[::-1]),
        (COLUMNS, ("class", "sib_sp", "fare", "age"), COLUMNS[::-1]),
        (COLUMNS[:2], COLUMNS, COLUMNS),
        ((), (), ()),
    ],
    ids=["signature", "file", "other names", "other order", "underscores", "too few", "none"],
)
def test_the_signature_names_the_columns_and_the_file_orders_them(
    tmp_path: Path, signed: tuple[str, ...], names: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    made = converted(tmp_path, columns(*signed) if signed else {}, names)
    assert remembered(config_pbtxt.parse(made.author_config)) == wanted
    again = converted(tmp_path / "again", columns(*signed) if signed else {}, names)
    assert again.author_config == made.author_config


def test_an_example_in_another_order_is_asked_right(tmp_path: Path) -> None:
    example = {"columns": [*COLUMNS[::-1]], "data": [[4, 3, 2, 1]]}
    made = converted(tmp_path, columns(*COLUMNS), COLUMNS, example)
    desired = DesiredModel.from_options({"name": "m", "model_uri": "models:/m/1"})
    judged = judge_example(made, made.author_config, ["http://a:1"], desired)
    assert judged.example == {"input__0": [[1, 2, 3, 4]]} and judged.warnings == ()
    example = {"columns": ["age"], "data": [[4]]}
    made = converted(tmp_path / "other", columns(*COLUMNS), COLUMNS, example)
    judged = judge_example(made, made.author_config, ["http://a:1"], desired)
    assert judged.example is None and "no column fare" in judged.warnings[0]


def test_a_file_that_is_published_already_is_the_same_content(tmp_path: Path) -> None:
    """Older releases published it without the names of its columns."""
    document = xgboost_document()
    document["learner"]["feature_names"] = [*COLUMNS]
    path = tmp_path / "xgboost.json"
    path.write_text(json.dumps(document))
    model = read_local_model(str(path), "forest")
    assert remembered(model.config) == COLUMNS
    older = tmp_path / "forest"
    os.makedirs(older / "1")
    (older / "1" / "xgboost.json").write_text(json.dumps(document))
    plain = forest_config(read_forest(str(path), "xgboost"))
    (older / "config.pbtxt").write_bytes(config_pbtxt.render(plain))
    assert model.content == read_local_model(str(older), "forest").content
