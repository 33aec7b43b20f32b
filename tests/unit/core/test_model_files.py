# SPDX-License-Identifier: Apache-2.0
"""One file as a model: what is made of it, and the sentence for each that is none. Nothing is run
on the way.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import types
import zipfile
from collections.abc import Callable
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
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    DeliveryError,
    InvalidOption,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.verification import (
    judge_example,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.conversion import (
    convert,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.flavors.layouts import (
    layout_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.boosters import (
    Booster,
    booster_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.default_config import (
    forest_config,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.sklearn_archive import (  # noqa: E501
    read_estimator,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.formats.trees import (
    read_forest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication.local_model import (  # noqa: E501
    LocalModel,
    read_local_model,
)
from support import models

pytest.importorskip("tritonclient")
numpy = pytest.importorskip("numpy")

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
TENSORS = {
    "max_batch_size": 4,
    "input": [{"name": "INPUT__0", "data_type": "TYPE_FP32", "dims": [3, 8]}],
    "output": [{"name": "OUTPUT__0", "data_type": "TYPE_FP16", "dims": [-1]}],
}
PYTHON = (
    "class TritonPythonModel:\n    def execute(self, requests):\n        raise SystemExit('was"
    " run')\n"
)
LIGHTGBM = (
    "tree\nversion=v4\nnum_class=3\nnum_tree_per_iteration=3\nmax_feature_idx=4\nobjective=multiclass"
    " num_class:3\n\nTree=0\nnum_leaves=1\n\nend of trees\n"
)


def torchscript(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names or (
            "model/data.pkl",
            "model/code/__torch__.py",
            "model/constants.pkl",
            "model/version",
        ):
            archive.writestr(name, b"")
    return path


def written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def onnx(kind: str = "FP32", dims: list[int | str | None] | None = None) -> bytes:
    return models.onnx_model(
        [models.onnx_node("Identity", ["x"], ["y"])], {"x": ("FP32", ["n", 2])}, {"y": (kind, dims)}
    )


def read(path: Path, **options: Any) -> LocalModel:
    return read_local_model(str(path), "net", None, **options)


def files(model: LocalModel) -> list[str]:
    return sorted(model.pieces)


class TestMade:
    @pytest.mark.parametrize(
        ("filename", "kind"),
        [
            ("trees.json", "xgboost_json"),
            ("trees.ubj", "xgboost_ubj"),
            ("trees.bst", "xgboost_json"),
        ],
    )
    def test_xgboost_is_told_by_its_content(self, tmp_path: Path, filename: str, kind: str) -> None:
        document = models.xgboost_document(features=7)
        path = written(
            tmp_path / filename,
            models.ubjson(document) if kind.endswith("ubj") else json.dumps(document),
        )
        model = read(path)
        assert files(model) == [f"1/{kind.replace('_', '.')}", "config.pbtxt"]
        assert (model.backend, model.config.parameters["model_type"].string_value) == ("fil", kind)
        assert (list(model.config.input[0].dims), list(model.config.output[0].dims)) == ([7], [2])

    def test_classes_and_numbers(self, tmp_path: Path) -> None:
        stumps = tuple((0, 0.5, -1.0, 1.0, group) for group in range(3))
        many = written(
            tmp_path / "a.json",
            json.dumps(models.xgboost_document(stumps, objective="multi:softprob", classes=3)),
        )
        plain = written(
            tmp_path / "b.json", json.dumps(models.xgboost_document(objective="reg:squarederror"))
        )
        assert list(read(many).config.output[0].dims) == [3]
        assert read(plain).config.parameters["predict_proba"].string_value == "false"

    def test_lightgbm(self, tmp_path: Path) -> None:
        model = read(written(tmp_path / "model.lgb", LIGHTGBM))
        assert files(model) == ["1/model.txt", "config.pbtxt"]
        assert (list(model.config.input[0].dims), list(model.config.output[0].dims)) == ([5], [3])

    @pytest.mark.parametrize(
        ("filename", "target", "platform"),
        [("a.plan", "model.plan", "tensorrt_plan"), ("a.engine", "model.plan", "tensorrt_plan")],
    )
    def test_tensorrt_with_options(
        self, tmp_path: Path, filename: str, target: str, platform: str
    ) -> None:
        model = read(written(tmp_path / filename, b"ftrt\x00\x01binary"), overlay=TENSORS)
        assert (files(model), model.config.platform, model.backend) == (
            [f"1/{target}", "config.pbtxt"],
            platform,
            "tensorrt",
        )
        assert (model.config.max_batch_size, list(model.config.input[0].dims)) == (4, [3, 8])

    def test_torchscript_with_options(self, tmp_path: Path) -> None:
        model = read(torchscript(tmp_path / "net.pt"), overlay=TENSORS)
        assert (files(model), model.config.platform) == (
            ["1/model.pt", "config.pbtxt"],
            "pytorch_libtorch",
        )

    def test_python(self, tmp_path: Path) -> None:
        assert files(read(written(tmp_path / "model.py", PYTHON), overlay=TENSORS)) == [
            "1/model.py",
            "config.pbtxt",
        ]
        completes = (
            PYTHON
            + "\n    @staticmethod\n    def auto_complete_config(config):\n        return config\n"
        )
        assert read(written(tmp_path / "other.py", completes)).backend == "python"

    def test_config_is_overlaid(self, tmp_path: Path) -> None:
        sample = models.make_onnx(tmp_path)
        bare, plain = (
            read(sample.folder / "1/model.onnx", overlay={"version_policy": {"all": {}}}),
            read(sample.folder),
        )
        changed, same = (
            read(sample.folder, overlay={"max_batch_size": 2}),
            read(sample.folder, overlay={"max_batch_size": 8}),
        )
        assert bare.config.version_policy.HasField("all")
        assert (changed.config.max_batch_size, changed.content == plain.content) == (2, False)
        assert same.content == plain.content
        assert same.manifest == plain.manifest


class TestRefused:
    @pytest.mark.parametrize(
        ("filename", "data", "said"),
        [
            ("a.onnx", LFS, "this is a git-lfs pointer: "),
            ("a.plan", LFS, "this is a git-lfs pointer: "),
            ("a.ubj", LFS, "this is a git-lfs pointer: "),
            ("a.tl", b"../../models/a.tl", "checked out without"),
            *(
                (f"a.{ending}", b"", "is empty")
                for ending in ("onnx", "plan", "ubj", "json", "txt", "tl", "pt", "py")
            ),
            ("a.json", b'{"a": 1}', "no key 'learner'"),
            ("a.json", b'{"learner": {', "is not a whole XGBoost model"),
            (
                "a.ubj",
                models.ubjson(models.xgboost_document())[:-40],
                "is not a whole XGBoost model",
            ),
            (
                "a.bst",
                b"\x08\x08\x12\x07pytorch",
                "is not a whole XGBoost model (it ends too early)",
            ),
            ("a.json", b'[{"nodeid": 0}]', "looks like what XGBoost's dump_model"),
            ("a.json", onnx(), "looks like an ONNX model"),
            ("a.onnx", pickle.dumps({}), "read the model: "),
            ("a.onnx", pickle.dumps({}), "looks like a pickle"),
            ("a.plan", onnx(), "looks like an ONNX model"),
            ("a.onnx", onnx("COMPLEX64", [1]), "the output 'y' of "),
            ("a.onnx", onnx(), "how many dimensions 'y' has"),
            ("a.bst", LIGHTGBM.encode(), "looks like a LightGBM model"),
            ("a.txt", b"Dear Sir or Madam", "is not a whole LightGBM model"),
            ("a.lgb", LIGHTGBM[:-15].encode(), "before its last tree"),
            ("a.tl", b"\x00" * 100, "is not a whole treelite model"),
            ("a.tl", b"\x04\x00", "is not a whole treelite model"),
            ("a.plan", b"PK\x03\x04", "looks like a zip archive"),
            ("a.engine", b'\x07\0\0\0{"a":1}ftrt\0', "metadata before the TensorRT plan"),
            ("a.plan", b"<!DOCTYPE html>", "looks like a page of HTML"),
            ("a.pt", b"weights", "is no TorchScript module"),
            ("a.py", b"def execute(:", "in line 1)"),
            ("a.py", b"print('was run')", "does not define the class TritonPythonModel"),
            ("a.py", PYTHON.encode(), "give them in config"),
            ("a.plan", b"ftrt binary", "give them in config"),
            ("a.pkl", b"\x80\x04.", "a pickle or a scikit-learn file"),
            ("a.h5", b"\x89HDF", "a file of a known kind"),
            ("model", b"x", "a file of a known kind"),
        ],
    )
    def test_each_has_its_sentence(
        self, tmp_path: Path, filename: str, data: bytes, said: str
    ) -> None:
        with pytest.raises(DeliveryError) as caught:
            read(written(tmp_path / filename, data))
        assert said in str(caught.value)

    def test_weights_that_were_left_behind(self, tmp_path: Path) -> None:
        folder = models.make_onnx(tmp_path, external_data=True).folder / "1"
        (folder / "weights.data").unlink()
        with pytest.raises(
            ArtifactError, match=r"weights in 'weights\.data', which is not beside it"
        ):
            read(folder / "model.onnx")

    def test_folder_of_a_file_instead_of_the_file(self, tmp_path: Path) -> None:
        folder = models.make_onnx(tmp_path).folder / "1"
        with pytest.raises(ArtifactError) as caught:
            read(folder)
        assert (
            str(caught.value)
            == f"find the model: the folder {folder} holds no version folder (a folder named 1, 2,"
            " … with the model's files); to publish a file by itself, name"
            f" {folder / 'model.onnx'}"
        )

    def test_torch_files_that_are_no_torchscript(self, tmp_path: Path) -> None:
        for names, said in (
            (("archive/data.pkl", "archive/data/0"), "pickled PyTorch module"),
            (("x/readme",), "no TorchScript module"),
            (("m/models/model.json",), "torch.export"),
        ):
            for ending in ("pt", "pth", "pt2"):
                with pytest.raises(ArtifactError, match=said):
                    read(torchscript(tmp_path / f"net.{ending}", *names), overlay=TENSORS)
        with pytest.raises(InvalidOption, match="INPUT__0"):
            read(torchscript(tmp_path / "net.pt"))

    def test_an_xgboost_without_trees(self, tmp_path: Path) -> None:
        document = models.xgboost_document()
        document["learner"]["gradient_booster"] = {"name": "gblinear", "model": {}}
        with pytest.raises(ArtifactError, match="gblinear"):
            read(written(tmp_path / "a.json", json.dumps(document)))

    def test_shapes_that_the_file_does_not_tell(self, tmp_path: Path) -> None:
        given = {
            side: [{"name": name, "data_type": "TYPE_FP32", "dims": [-1, 2]}]
            for side, name in (("input", "x"), ("output", "y"))
        }
        assert list(
            read(written(tmp_path / "a.onnx", onnx()), overlay=given).config.output[0].dims
        ) == [-1, 2]

    @pytest.mark.parametrize("data", [b"", b"no model at all", LFS, onnx("COMPLEX64", [1])])
    def test_in_a_folder(self, tmp_path: Path, data: bytes) -> None:
        for sample in (models.make_onnx(tmp_path), models.make_forest(tmp_path)):
            for path in (sample.folder / "1").iterdir():
                written(path, data)
            with pytest.raises(ArtifactError):
                read(sample.folder)

    def test_example_with_other_tensors(self, tmp_path: Path) -> None:
        folder = models.make_onnx(tmp_path).folder
        for example, said in (
            ({"z": [[1.0]]}, "names the input 'z'"),
            ({"x": [[1.0]], "q": []}, "names the input 'q'"),
        ):
            with pytest.raises(InvalidOption, match=said):
                read(folder, example=example)


class Evil:
    """A pickle that runs a program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return shutil.rmtree, ("the folder", True)


class TestPickles:
    def test_nothing_is_run(self, tmp_path: Path) -> None:
        pytest.importorskip("numpy")
        path = written(tmp_path / "model.pkl", pickle.dumps(Evil()))
        with pytest.raises(ArtifactError, match=r"asks for shutil.rmtree.*was not run"):
            read_estimator(str(path))

    @pytest.mark.parametrize(
        "data", [b"", b"\x80\x04junk", pickle.dumps([1]), b"cos\nsystem\n(S'touch x'\ntR."]
    )
    def test_what_is_no_model(self, tmp_path: Path, data: bytes) -> None:
        pytest.importorskip("numpy")
        with pytest.raises(ArtifactError):
            read_estimator(str(written(tmp_path / "model.pkl", data)))
        assert not (tmp_path / "x").exists()


class TestPickledLightgbm:
    def convert(self, folder: Path, data: bytes) -> Path:
        (folder / "1").mkdir()
        path = written(folder / "1/model.pkl", data)
        entry = FileEntry("1/model.pkl", len(data), "")
        made = Layout(
            "lightgbm",
            (("model.pkl", "1/model.pkl", len(data)),),
            (),
            b"",
            (1,),
            (1,),
            conversion="lightgbm",
        )
        convert(made, str(folder), Manifest.of([entry]))
        return path.with_name("model.txt")

    def test_its_text_is_taken_out(self, tmp_path: Path, stub: Callable[..., Any]) -> None:
        booster = stub("lightgbm.basic.Booster", _handle=LIGHTGBM, more=Evil())
        data = pickle.dumps(stub("lightgbm.sklearn.LGBMClassifier", _Booster=booster))
        assert self.convert(tmp_path, data).read_text(encoding="utf-8") == LIGHTGBM

    def test_a_class_of_its_author_is_refused_as_its_code_does_not_run(
        self, tmp_path: Path, stub: Callable[..., Any]
    ) -> None:
        booster = stub("lightgbm.basic.Booster", handle=LIGHTGBM)
        data = pickle.dumps(stub("models.Ours", _Booster=booster))
        with pytest.raises(ArtifactError, match=r"class models\.Ours is not .*model\.booster_\)"):
            self.convert(tmp_path, data)

    @pytest.mark.parametrize("held", ["kept", "set"])
    def test_trees_that_are_left_out_while_it_predicts(
        self, tmp_path: Path, stub: Callable[..., Any], held: str
    ) -> None:
        booster = stub("lightgbm.basic.Booster", handle=LIGHTGBM)
        said = {"pred_early_stop": True}
        more = {"_other_params": said} if held == "kept" else said
        data = pickle.dumps(stub("lightgbm.sklearn.LGBMClassifier", _Booster=booster, **more))
        with pytest.raises(ArtifactError, match=r"pred_early_stop.*model\.booster_\)"):
            self.convert(tmp_path, data)

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (pickle.dumps({"a": "b"}), "holds no LightGBM model"),
            (pickle.dumps({"handle": LIGHTGBM})[:-20], "is not a whole pickle"),
            (b"junk", "is not a whole pickle"),
            (b"", "model.pkl is empty"),
        ],
    )
    def test_what_is_none(self, tmp_path: Path, data: bytes, said: str) -> None:
        with pytest.raises(ArtifactError, match=said):
            self.convert(tmp_path, data)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """An object of a class of that name, as pickle finds it."""

    def make(origin: str, **values: Any) -> Any:
        module, _dot, name = origin.rpartition(".")
        kind = type(name, (), {"__module__": module, "__qualname__": name})
        for whole in (module.partition(".")[0], module):
            place = sys.modules.get(whole) or types.ModuleType(whole)
            monkeypatch.setitem(sys.modules, whole, place)
        monkeypatch.setattr(place, name, kind, raising=False)
        made = kind()
        vars(made).update(values)
        return made

    return make


class TestBoostersOfTheirScikitLearnClasses:
    MODEL = b"{L\x00\x00\x00\x00\x00\x00\x00\x01ai\x07}"
    SNAPSHOT = (
        b"{L\x00\x00\x00\x00\x00\x00\x00\x06Config{}"
        b"L\x00\x00\x00\x00\x00\x00\x00\x05Model" + MODEL + b"}"
    )

    def found(self, folder: Path, model: Any) -> Any:
        return booster_of(str(written(folder / "model.pkl", pickle.dumps(model))))

    def test_xgboost_s_own_model_is_taken_out(
        self, tmp_path: Path, stub: Callable[..., Any]
    ) -> None:
        booster = stub("xgboost.core.Booster", handle=bytearray(self.SNAPSHOT), more=Evil())
        model = stub("xgboost.sklearn.XGBClassifier", _Booster=booster, missing=float("nan"))
        assert self.found(tmp_path, model) == Booster("xgboost", self.MODEL)

    @pytest.mark.parametrize(
        ("handle", "more", "said"),
        [
            (SNAPSHOT, {"missing": -999.0}, r"takes -999 for a missing value.*missing=float"),
            (SNAPSHOT, {"missing": 0}, "takes 0 for a missing value"),
            (SNAPSHOT, {"missing": numpy.float32(-9)}, "takes -9 for a missing value"),
            (SNAPSHOT, {"missing": numpy.int64(-9)}, "takes -9 for a missing value"),
            (b"binf", {}, "log it with mlflow.xgboost.log_model"),
            (None, {}, "was not trained"),
        ],
    )
    def test_what_would_answer_otherwise_is_refused(
        self,
        tmp_path: Path,
        stub: Callable[..., Any],
        handle: bytes | None,
        more: dict[str, Any],
        said: str,
    ) -> None:
        booster = stub("xgboost.core.Booster", handle=bytearray(handle or b""))
        held = {"_Booster": booster} if handle else {}
        with pytest.raises(ArtifactError, match=said):
            self.found(tmp_path, stub("xgboost.sklearn.XGBRegressor", **held, **more))

    def test_another_s_class_is_none_of_theirs(
        self, tmp_path: Path, stub: Callable[..., Any]
    ) -> None:
        booster = stub("xgboost.core.Booster", handle=bytearray(self.SNAPSHOT))
        assert self.found(tmp_path, stub("models.Ours", _Booster=booster)) is None

    def test_trees_after_the_best_iteration_are_left_out(
        self, tmp_path: Path, stub: Callable[..., Any]
    ) -> None:
        """LightGBM keeps them in a pickle, and predicts without them."""
        head = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=2\ntree_sizes=9 9 9 9 9 9\n\n"
        trees = [f"Tree={number}\nx\n\n\n" for number in range(6)]
        text = "".join([head, *trees, "end of trees\n\nparameters:\n"])
        booster = stub("lightgbm.basic.Booster", _handle=text, best_iteration=2)
        cut = self.found(tmp_path, stub("lightgbm.sklearn.LGBMRegressor", _Booster=booster))
        assert cut.data.decode() == "".join(
            [head.replace("9 9 9 9 9 9", "9 9 9 9"), *trees[:4], "end of trees\n\nparameters:\n"]
        )
        booster.best_iteration = numpy.int64(2)
        assert cut == self.found(tmp_path, stub("lightgbm.sklearn.LGBMRegressor", _Booster=booster))
        booster.best_iteration = -1
        whole = self.found(tmp_path, stub("lightgbm.sklearn.LGBMRegressor", _Booster=booster))
        assert whole.data.decode() == text


def test_content_of_a_forest_of_treelite_four(tmp_path: Path) -> None:
    header = (
        (4).to_bytes(4, "little")
        + bytes(8)
        + b"\x03\x03"
        + (250).to_bytes(8, "little")
        + (297).to_bytes(4, "little")
        + b"\x02\x01"
    )
    header += (1).to_bytes(4, "little") + (1).to_bytes(8, "little") + (2).to_bytes(4, "little")
    found = read_forest(str(written(tmp_path / "a.tl", header + bytes(64))), "treelite")
    assert (found.features, found.task, found.columns) == (297, "classes", 2)


def layout(flavors: dict[str, Any], names: dict[str, bytes], **more: Any) -> Layout:
    sizes = {name: max(1, len(data)) for name, data in names.items()}
    artifact = Artifact(sizes, (), {"flavors": flavors, **more}, None, names.__getitem__)
    return layout_of(artifact, None, Numbering("auto", 3, False))


SIGNATURE = {
    "inputs": json.dumps(
        [{"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]
    ),
    "outputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]),
}


class TestLayouts:
    def test_torchscript_of_a_signature(self) -> None:
        found = layout(
            {"pytorch": {"model_data": "data"}, "python_function": {}},
            {"data/model.pth": b"", "data/pickle_module_info.txt": b""},
            signature=SIGNATURE,
        )
        assert (found.files, found.missing) == ((("data/model.pth", "3/model.pt", 1),), None)
        message = config_pbtxt.parse(found.author_config)
        assert [
            (tensor.name, list(tensor.dims)) for tensor in (*message.input, *message.output)
        ] == [("INPUT__0", [-1, 4]), ("OUTPUT__0", [-1])]

    @pytest.mark.parametrize(("shape", "dims"), [([], None), ([1], [1])])
    def test_torchscript_that_answers_a_scalar(self, shape: list[int], dims: Any) -> None:
        """Refused before the load, which would succeed; and with the dimension it is served."""
        spec = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": shape}}]
        signature = {**SIGNATURE, "outputs": json.dumps(spec)}
        given: tuple[dict[str, Any], dict[str, bytes]] = ({"pytorch": {}}, {"data/model.pth": b""})
        if dims is None:
            with pytest.raises(ArtifactError, match=r"reshape\(1\)"):
                layout(*given, signature=signature)
            return
        message = config_pbtxt.parse(layout(*given, signature=signature).author_config)
        assert list(message.output[0].dims) == dims

    def test_torchscript_without_one(self) -> None:
        found = layout({"pytorch": {"model_data": "data"}}, {"data/model.pth": b""})
        assert found.missing
        assert (
            "log a TorchScript module (torch.jit.script(model), Triton loads no other) with a"
            " signature" in found.missing
        )

    @pytest.mark.parametrize(
        ("flavors", "names", "said"),
        [
            ({"pytorch": {}}, ["data/model.pt2"], "torch.export"),
            ({"catboost": {}, "python_function": {}}, ["model.cb"], "format='onnx'"),
            ({"python_function": {}}, ["python_model.pkl"], "Python code that only MLflow can run"),
            ({"python_function": {}}, ["artifacts/net.onnx"], "Python code that only MLflow"),
            ({"python_function": {}}, ["artifacts/1/model.onnx"], "Python code that only MLflow"),
            ({"spacy": {}}, ["1/model.onnx"], "flavor spacy cannot be served"),
            ({"xgboost": {}}, ["other.bin"], "no file of a xgboost model"),
            ({"sklearn": {}}, ["a.pkl", "b.pkl"], "2 models"),
        ],
    )
    def test_what_cannot_be_served(
        self, flavors: dict[str, Any], names: list[str], said: str
    ) -> None:
        with pytest.raises(ArtifactError, match=said):
            layout(flavors, dict.fromkeys(names, b""))

    @pytest.mark.parametrize("name", ["my model.onnx", "mödel.onnx", 'a"b.onnx', "$(x).onnx"])
    def test_a_name_that_a_command_line_breaks_becomes_a_plain_one(self, name: str) -> None:
        found = layout({"onnx": {"data": name}}, {name: b"", "weights of it.bin": b""})
        assert [target for _source, target, _size in found.files] == [
            "3/model.onnx" if path == name else f"3/{path}"
            for path in sorted([name, "weights of it.bin"])
        ]
        config = config_pbtxt.parse(found.author_config)
        assert config.default_model_filename == "model.onnx"

    @pytest.mark.parametrize(
        ("path", "folder"),
        [
            ("$$TRITON_MODEL_DIRECTORY/1/env.tar.gz", 1),
            ("$$TRITON_MODEL_DIRECTORY/env.tar.gz", 3),
            ("$$TRITON_MODEL_DIRECTORY/10env/env.tar.gz", 3),
        ],
    )
    def test_a_version_folder_that_the_configuration_names_keeps_its_number(
        self, path: str, folder: int
    ) -> None:
        key = 'backend: "python" parameters { key: "EXECUTION_ENV_PATH" value { string_value: '
        names = {"config.pbtxt": f'{key}"{path}" }} }}'.encode(), "1/model.py": b""}
        assert layout({}, names).versions == (folder,)

    def test_a_configuration_beside_another_flavor_is_meant_for_triton(self) -> None:
        names = {"config.pbtxt": b'backend: "onnxruntime"', "1/model.onnx": b"x"}
        assert layout({"python_function": {}}, names).flavor == "triton"

    @pytest.mark.parametrize("kind", ["sparse_matrix_csr", "sparse_matrix_csc"])
    def test_what_absent_means_to_xgboost_is_told(self, kind: str) -> None:
        info = {"saved_input_example_info": {"type": kind}}
        found = layout({"xgboost": {"data": "model.ubj"}}, {"model.ubj": b""}, **info)
        assert "send NaN" in found.warnings[0]
        assert not layout({"lightgbm": {}}, {"model.lgb": b""}, **info).warnings

    @pytest.mark.parametrize(
        ("example", "expected"),
        [
            ({"inputs": [[1.0, 2]]}, {"input__0": [[1.0, 2]]}),
            (
                {"dataframe_split": {"columns": ["a", "b"], "data": [[3, 4]]}},
                {"input__0": [[3, 4]]},
            ),
            ({"inputs": {"a": [1.0]}}, None),
            ({"inputs": [[1.0]]}, None),
            ({"dataframe_split": {"columns": ["a", "b"], "data": [["text", 1]]}}, None),
        ],
    )
    def test_examples_of_trees(
        self, tmp_path: Path, example: dict[str, Any], expected: Any
    ) -> None:
        """Rows of numbers, and the tensor is known when the model is here."""
        data = {"model.ubj": b"", "serving_input_example.json": json.dumps(example).encode()}
        made = layout({"xgboost": {"data": "model.ubj"}}, data)
        assert made.example == example
        path = written(tmp_path / "model.ubj", models.ubjson(models.xgboost_document(features=2)))
        config = forest_config(read_forest(str(path), "xgboost"))
        judged = judge_example(made, config_pbtxt.render(config), [], DesiredModel("net"))
        assert (judged.example, len(judged.warnings)) == (expected, expected is None)

    @pytest.mark.parametrize(
        ("example", "why"),
        [
            (b"no json", "is not JSON"),
            (b"[" * 60000, "is not JSON"),
            (b'{"a":' * 200 + b"1" + b"}" * 200, "holds no tensors"),
            (b"3", "holds no tensors"),
            (b"{}", "holds no tensors"),
            (b"[" + b"1," * 40000 + b"1]", "has 80003 bytes, and 65536 are read at most"),
        ],
    )
    def test_an_example_that_cannot_be_read_is_told_of(self, example: bytes, why: str) -> None:
        data = {"model.ubj": b"", "input_example.json": example}
        made = layout({"xgboost": {"data": "model.ubj"}}, data)
        judged = judge_example(made, b"", [], DesiredModel("net"))
        (said,) = judged.warnings
        assert made.example is None and f"(input_example.json {why}" in said
        assert judge_example(judged, b"", [], DesiredModel("net")).warnings == (said,)
        assert not judge_example(made, b"", [], DesiredModel("net", verify="none")).warnings
