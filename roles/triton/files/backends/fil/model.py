# SPDX-License-Identifier: Apache-2.0
"""Triton backend `fil` for the PyPI server: tree ensembles through treelite's own inference
library.

Model folders and parameters of Triton's Forest Inference Library backend are taken unchanged; those
that tune a GPU (algo, storage_type, blocks_per_sm, threads_per_tree, chunk_size, layout,
transfer_threshold, ...) mean nothing here. Nothing is ever unpickled: only the formats that
treelite parses are read.
"""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

# Threads of GTIL that spin after a request take the processor from the other models' processes. It
# must be set before treelite loads its OpenMP library.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    # treelite itself is imported where it is used.
    import treelite
    from numpy.typing import NDArray

    Answers = Callable[[int, int], pb_utils.InferenceResponse]
    # From a row to another (not included) -> the response for these.

Config = Dict[str, Any]
"""A model configuration as JSON."""
Number = TypeVar("Number", int, float)

_MARK = "mlops_triton_instance"
INPUT = "input__0"
OUTPUT = "output__0"
# Below it, waking threads costs more than they save.
ROWS_WORTH_THREADS = 64
# What a sound file of any size is read in many times over.
PROBE_SECONDS = 60
DEFAULT_MAX_BATCH_SIZE = 32768
FILENAMES = {
    "xgboost": "xgboost.model",
    "xgboost_json": "xgboost.json",
    "xgboost_ubj": "xgboost.ubj",
    "lightgbm": "model.txt",
    "treelite_checkpoint": "checkpoint.tl",
}
# treelite's task types whose answer may be a class.
BINARY, MULTICLASS = 0, 2
# treelite's postprocessors whose answer for several classes is probabilities.
PROBABILITIES = ("softmax", "multiclass_ova")


def _error(text: str) -> pb_utils.TritonModelException:
    return pb_utils.TritonModelException(text)


def _parameter(config: Config, name: str) -> Optional[str]:
    value = (config.get("parameters") or {}).get(name)
    return None if value is None else value.get("string_value")


def _flag(config: Config, name: str) -> Optional[bool]:
    text = _parameter(config, name)
    if text is None:
        return None
    if text.strip().lower() not in ("true", "false", "1", "0"):
        raise _error(f"parameter {name} must be true or false, not '{text}'")
    return text.strip().lower() in ("true", "1")


def _number(config: Config, name: str, kind: Callable[[str], Number], default: Number) -> Number:
    text = _parameter(config, name)
    try:
        return kind(text) if text is not None else default
    except ValueError:
        raise _error(f"parameter {name} must be a number, not '{text}'") from None


def _plain(err: Exception) -> str:
    """treelite's text without time stamps and source locations."""
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", str(err))
    return " ".join(text.split()) or type(err).__name__


# ---- model files ---------------------------------------------------------------------------------


def _model_file(config: Config, model_type: str) -> Tuple[str, bytes]:
    name = config.get("default_model_filename") or FILENAMES[model_type]
    path = os.path.join(pb_utils.get_model_dir(), name)
    try:
        with open(path, "rb") as stream:
            head = stream.read(64)
    except OSError as err:
        raise _error(
            f"model file {path} cannot be read: {err.strerror} (model_type {model_type} is looked"
            f" for as {FILENAMES[model_type]} unless default_model_filename says otherwise)"
        ) from None
    if not head:
        raise _error(f"model file {path} is empty")
    if head.startswith(b"version https://git-lfs"):
        raise _error(f"model file {path} is a git-lfs pointer: fetch the file with git lfs pull")
    if head.startswith(b"../"):
        raise _error(
            f"model file {path} is a symbolic link that was checked out as text: use git with"
            " core.symlinks=true"
        )
    return path, head


def _xgboost_format(head: bytes) -> str:
    """XGBoost's own file names say nothing certain: a .bst, .model or .xgb may hold any of its
    three formats.
    """
    text = head.lstrip()
    if text.startswith(b"{"):
        return "xgboost_json" if text[1:].lstrip()[:1] in (b'"', b"}") else "xgboost_ubj"
    return "xgboost"


def _load(config: Config) -> treelite.Model:
    try:
        import treelite
    except ImportError as err:
        raise _error(
            f"the treelite package is missing in the environment of the server ({err})"
        ) from None
    model_type = _parameter(config, "model_type") or "xgboost"
    if model_type not in FILENAMES:
        raise _error(
            f"parameter model_type is '{model_type}', known are {', '.join(sorted(FILENAMES))}"
        )
    path, head = _model_file(config, model_type)
    found = _xgboost_format(head) if model_type.startswith("xgboost") else model_type
    if found != model_type and model_type != "xgboost":
        raise _error(
            f"model file {path} is not {model_type}: it looks like {found}, which model_type"
            " should say"
        )
    unknown = bool(_flag(config, "xgboost_allow_unknown_field"))
    frontend = treelite.frontend
    loaders: Dict[str, Callable[[], treelite.Model]] = {
        "xgboost": lambda: frontend.load_xgboost_model_legacy_binary(path),
        "xgboost_json": lambda: frontend.load_xgboost_model(
            path, format_choice="json", allow_unknown_field=unknown
        ),
        "xgboost_ubj": lambda: frontend.load_xgboost_model(
            path, format_choice="ubjson", allow_unknown_field=unknown
        ),
        "lightgbm": lambda: frontend.load_lightgbm_model(path),
        "treelite_checkpoint": lambda: treelite.Model.deserialize(path),
    }
    hint = ""
    if found == "xgboost":
        hint = (
            " (neither JSON nor UBJSON, and not XGBoost's old binary format: save it again with"
            " save_model)"
        )
    try:
        if found in ("xgboost", "treelite_checkpoint"):
            _probe(path, loaders[found])
        return loaders[found]()
    except pb_utils.TritonModelException:
        raise
    except Exception as err:
        raise _error(f"model file {path} cannot be read as {found}{hint}: {_plain(err)}") from None


def _probe(path: str, load: Callable[[], object]) -> None:
    """Read a binary format in a child first: treelite trusts its offsets, and a crash here would
    take the server along.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(PROBE_SECONDS)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            load()
            code = 0
        except BaseException:
            # The parent gets the same error in words.
            code = 0
        finally:
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        raise _error(f"model file {path} is damaged: treelite does not survive reading it ({name})")


# ---- one forest ----------------------------------------------------------------------------------


def give_probabilities(header: Any) -> None:
    """Replace what names a class, or leaves margins as they are, as Triton's own backend does.

    Leaves with a value for each class are no sign of probabilities: XGBoost's multi_output_tree
    keeps margins in them, random forests shares, which are averaged. The publisher compares by the
    same rule.
    """
    name = header.get_field("postprocessor")
    vector = int(header.get_field("leaf_vector_shape")[1]) > 1
    if name in PROBABILITIES or (name == "identity_multiclass" and vector):
        return
    shares = vector and bool(header.get_field("average_tree_output")[0])
    header.set_field("postprocessor", "identity_multiclass" if shares else "softmax")


class Forest:
    """A loaded ensemble and how the configuration wants its answers."""

    def __init__(self, config: Config) -> None:
        self.model = _load(config)
        header = self.model.get_header_accessor()
        self.features = int(self.model.num_feature)
        self.targets = int(header.get_field("num_target")[0])
        self.classes = int(max(header.get_field("num_class")))
        task = int(header.get_field("task_type")[0])
        self.proba = bool(_flag(config, "predict_proba"))
        classifier = _flag(config, "output_class")
        if classifier is None:
            classifier = _flag(config, "is_classifier")
        # Triton's own backend insists on output_class; the model knows as well.
        self.classifier = task in (BINARY, MULTICLASS) if classifier is None else classifier
        self.threshold = _number(config, "threshold", float, 0.5)
        self.threads = _number(config, "cpu_nthread", int, -1)
        if self.threads <= 0:
            self.threads = _threads(config)
        self.threads = min(self.threads, _most_threads())
        if _parameter(config, "treeshap_output"):
            raise _error("Shapley values (treeshap_output) are not computed on this server")
        if self.proba and task == MULTICLASS:
            give_probabilities(header)
        self.columns = self._columns()

    def _columns(self) -> int:
        if self.proba and self.classifier and self.classes == 1 and self.targets == 1:
            return 2
        if self.classifier and not self.proba:
            return self.targets
        return self.targets * self.classes

    def fit(self, config: Config) -> None:
        """Check inputs and outputs of the configuration; it may ask for one column where a binary
        model gives two.
        """
        batched = int(config.get("max_batch_size") or 0) > 0
        for role, name in (("input", INPUT), ("output", OUTPUT)):
            items = config.get(role) or []
            if [item["name"] for item in items] != [name]:
                raise _error(
                    f"the {role} must be one tensor named '{name}', the configuration has "
                    f"{', '.join(repr(item['name']) for item in items) or 'none'}"
                )
            if items[0]["data_type"] != "TYPE_FP32":
                raise _error(
                    f"{role} '{name}' must be TYPE_FP32, the configuration says"
                    f" {items[0]['data_type']}"
                )
        width = _width(config["input"][0], batched)
        if width not in (-1, self.features):
            raise _error(
                f"tensor '{INPUT}': the model has {self.features} features, the configuration"
                f" specifies dims {_dims(config['input'][0])}"
            )
        width = _width(config["output"][0], batched)
        if self.columns == 2 and self.classes == 1 and width == 1:
            self.columns = 1
        if width not in (-1, self.columns):
            raise _error(
                f"tensor '{OUTPUT}': the model gives {self.columns} values a row, the configuration"
                f" specifies dims {_dims(config['output'][0])}"
            )

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows of the form (n, features) -> (n, columns), or (n,) for one column, as Triton's own
        backend answers.
        """
        from treelite import gtil

        threads = self.threads if len(rows) >= ROWS_WORTH_THREADS else 1
        raw = gtil.predict(self.model, rows, nthread=threads)
        if self.classifier and not self.proba:
            answer = self._classes(raw)
        elif self.columns == 2 and self.classes == 1 and self.targets == 1:
            positive = raw[:, 0, 0]
            answer = np.stack([1 - positive, positive], axis=1)
        else:
            answer = raw.reshape(len(rows), -1)
        answer = np.ascontiguousarray(answer, dtype=np.float32)
        return answer[:, 0] if answer.shape[1] == 1 else answer

    def _classes(self, raw: NDArray[Any]) -> NDArray[Any]:
        if self.classes == 1:
            return raw[:, :, 0] > self.threshold
        # The real backend's rule is "greater than the best so far, beginning with 0": without a
        # positive value, class 0.
        return np.where((raw > 0).any(axis=2), raw.argmax(axis=2), 0)


def _dims(item: Dict[str, Any]) -> List[int]:
    return [int(size) for size in item["dims"]]


def _width(item: Dict[str, Any], batched: bool) -> int:
    """Values a row; without max_batch_size the first dimension is the number of rows."""
    dims = _dims(item)
    if not batched and len(dims) > 1:
        dims = dims[1:]
    elif not batched:
        return 1 if dims == [-1] and item["name"] == OUTPUT else dims[0]
    if -1 in dims:
        return -1
    return int(np.prod(dims))


def _threads(config: Config) -> int:
    """Every instance is a process of its own: together they should fill the processors, not fight
    for them.
    """
    instances = sum(int(group.get("count") or 1) for group in config.get("instance_group") or [{}])
    return max(1, len(os.sched_getaffinity(0)) // max(1, instances))


def _most_threads() -> int:
    """As many as OpenMP has; GTIL takes a higher number for an error."""
    text = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    wanted = int(text) if text.isdecimal() else 0
    return wanted or len(os.sched_getaffinity(0))


# ---- serving -------------------------------------------------------------------------------------


class Verified:
    """Counts, in the server's metrics, what an instance answered of the requests by which a
    delivery finds out whether each of several instances answers: Triton does not tell them apart.

    No other request costs more than a look at its parameters, and none of a model with one
    instance costs anything.
    """

    def __init__(self, args: Dict[str, str], config: Config) -> None:
        groups = config.get("instance_group") or [{}]
        count = sum(
            int(one.get("count") or 1) * max(1, len(one.get("gpus") or ())) for one in groups
        )
        self._looks = count > 1
        self._labels = {
            "model": args["model_name"],
            "version": args["model_version"],
            "instance": args["model_instance_name"],
        }
        self._family: Optional[pb_utils.MetricFamily] = None
        self._metric: Optional[pb_utils.Metric] = None

    def count(self, requests: Sequence[pb_utils.InferenceRequest]) -> None:
        if not self._looks:
            return
        try:
            asked = sum(_MARK in request.parameters() for request in requests)
            if asked and self._metric is None:
                self._family = pb_utils.MetricFamily(
                    name="mlops_triton_verified",
                    description="Requests of verifications that an instance has answered",
                    kind=pb_utils.MetricFamily.COUNTER,
                )
                self._metric = self._family.Metric(labels=self._labels)
            if asked and self._metric:
                self._metric.increment(asked)
        except Exception as err:  # a server without metrics: no reason not to answer
            self._looks = False
            pb_utils.Logger.log_warn(f"instances cannot be told apart: {err}")


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(
        auto_complete_model_config: pb_utils.ModelConfig,
    ) -> pb_utils.ModelConfig:
        config = auto_complete_model_config.as_dict()
        # treelite is not even imported for a complete one: this runs in a process of its own at
        # each load.
        if config.get("input") and config.get("output"):
            return auto_complete_model_config
        forest = Forest(config)
        if (
            not int(config.get("max_batch_size") or 0)
            and not config.get("input")
            and not config.get("output")
        ):
            config["max_batch_size"] = DEFAULT_MAX_BATCH_SIZE
            if "sequence_batching" not in config:
                config.setdefault("dynamic_batching", {})
        rows = [] if int(config.get("max_batch_size") or 0) else [-1]
        for key, name, width in (
            ("input", INPUT, forest.features),
            ("output", OUTPUT, forest.columns),
        ):
            if not config.get(key):
                config[key] = [{"name": name, "data_type": "TYPE_FP32", "dims": [*rows, width]}]
        return auto_complete_model_config

    def initialize(self, args: Dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self._forest = Forest(config)
        self._forest.fit(config)
        self._verified = Verified(args, config)

    def execute(
        self, requests: Sequence[pb_utils.InferenceRequest]
    ) -> List[Optional[pb_utils.InferenceResponse]]:
        responses: List[Optional[pb_utils.InferenceResponse]] = [None] * len(requests)
        batch: List[Tuple[int, NDArray[Any]]] = []
        for index, request in enumerate(requests):
            try:
                batch.append((index, self._rows(request)))
            except ValueError as err:
                responses[index] = _failure(str(err))
        if len(batch) > 1:
            # Rows do not depend on each other, so requests of any size are one call.
            merged = self._answers(np.concatenate([rows for _index, rows in batch]))
            start = 0
            for index, rows in batch:
                responses[index] = merged(start, start + len(rows))
                start += len(rows)
        elif batch:
            index, rows = batch[0]
            responses[index] = self._answers(rows)(0, len(rows))
        self._verified.count(requests)
        return responses

    def finalize(self) -> None:
        del self._forest

    def _rows(self, request: pb_utils.InferenceRequest) -> NDArray[Any]:
        rows = next(tensor for tensor in request.inputs() if tensor.name() == INPUT).as_numpy()
        shape = list(rows.shape)
        if rows.ndim == 1 and len(rows) == self._forest.features:
            return rows.reshape(1, -1)
        if rows.ndim < 2 or int(np.prod(shape[1:])) != self._forest.features:
            raise ValueError(
                f"input '{INPUT}' has shape {shape}: the model wants rows of"
                f" {self._forest.features} features"
            )
        return rows.reshape(len(rows), -1)

    def _answers(self, rows: NDArray[Any]) -> Answers:
        if not len(rows):
            empty = np.empty(
                (0,) if self._forest.columns == 1 else (0, self._forest.columns), np.float32
            )
            return lambda start, end: _answer(empty)
        try:
            values = self._forest.predict(rows)
        except Exception as err:
            failure = f"inference failed for input '{INPUT}' {list(rows.shape)}: {_plain(err)}"
            return lambda start, end: _failure(failure)
        return lambda start, end: _answer(values[start:end])


def _answer(values: NDArray[Any]) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse([pb_utils.Tensor(OUTPUT, values)])


def _failure(text: str) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(text, pb_utils.TritonError.INVALID_ARG)
    )
