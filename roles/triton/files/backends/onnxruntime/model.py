# SPDX-License-Identifier: Apache-2.0
"""Triton backend `onnxruntime` for the PyPI server: ONNX models through PyPI's onnxruntime.

Model folders that Triton's own backend serves are served here unchanged; configurations are
completed, checked and refused by the same rules, so that what loads here loads there. What that
backend has beyond the CPU and CUDA providers (TensorRT and OpenVINO acceleration, state of
sequences) is refused or ignored as said below. Control inputs of sequences and ``batch_input`` are
inputs that no client sends.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    # onnxruntime itself is imported where it is used.
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession, NodeArg

Config = Dict[str, Any]
"""A model configuration as JSON."""
Dims = List[int]
"""-1 for a free dimension."""
Tensors = Dict[str, Tuple[str, Dims]]
"""Name -> data type and dims."""
Feed = Dict[str, "NDArray[Any]"]
Member = Tuple[int, Feed, Tuple[str, ...]]
"""Position of a request, its inputs, the outputs that it wants."""

_MARK = "mlops_triton_instance"
# What Triton itself takes when a model can batch and nobody says how much.
DEFAULT_MAX_BATCH_SIZE = 4

TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


class Signature:
    """Inputs and outputs of an ONNX model in Triton's terms: name -> (data type, dims with -1 for a
    free one).
    """

    def __init__(self, session: InferenceSession) -> None:
        self.inputs: Tensors = {item.name: _tensor("input", item) for item in session.get_inputs()}
        self.outputs: Tensors = {
            item.name: _tensor("output", item) for item in session.get_outputs()
        }
        # Initializers that are graph inputs too have a default: a configuration may offer them to
        # clients.
        self.defaults: Tensors = {
            item.name: _tensor("input", item) for item in session.get_overridable_initializers()
        }

    def can_batch(self) -> bool:
        tensors = list(self.inputs.values()) + list(self.outputs.values())
        return all(dims and dims[0] == -1 for _type, dims in tensors)


def _tensor(role: str, item: NodeArg) -> Tuple[str, Dims]:
    if item.type not in TYPES:
        hint = ""
        if item.type.startswith(("seq", "map")):
            hint = " (for scikit-learn models convert with the option zipmap=False)"
        raise pb_utils.TritonModelException(
            f"{role} '{item.name}' is of type {item.type}, which Triton cannot carry{hint}"
        )
    # Empty for a scalar, and for a tensor whose rank is not declared: onnxruntime does not tell
    # them apart.
    return TYPES[item.type], [
        size if isinstance(size, int) and size >= 0 else -1 for size in item.shape
    ]


def _model_file(config: Config) -> str:
    path = os.path.join(
        pb_utils.get_model_dir(), config.get("default_model_filename") or "model.onnx"
    )
    if os.path.isdir(path):
        path = os.path.join(path, "model.onnx")
    try:
        with open(path, "rb") as stream:
            head = stream.read(40)
    except OSError as err:
        raise pb_utils.TritonModelException(
            f"model file {path} cannot be read: {err.strerror}"
        ) from None
    if not head:
        raise pb_utils.TritonModelException(f"model file {path} is empty")
    if head.startswith(b"version https://git-lfs"):
        raise pb_utils.TritonModelException(
            f"model file {path} is a git-lfs pointer: fetch the file with git lfs pull"
        )
    if head.startswith(b"../"):
        raise pb_utils.TritonModelException(
            f"model file {path} is a symbolic link that was checked out as text: use git with"
            " core.symlinks=true"
        )
    return path


def _parameter(config: Config, name: str) -> Optional[str]:
    return (config.get("parameters") or {}).get(name, {}).get("string_value")


def _whole(config: Config, name: str, default: int = 0) -> int:
    text = _parameter(config, name)
    try:
        return int(text) if text is not None else default
    except ValueError:
        raise pb_utils.TritonModelException(
            f"parameter {name} must be a whole number, not '{text}'"
        ) from None


def _flag(config: Config, name: str) -> Optional[bool]:
    text = _parameter(config, name)
    if text is None:
        return None
    if text.lower() not in ("true", "false", "1", "0"):
        raise pb_utils.TritonModelException(f"parameter {name} must be true or false, not '{text}'")
    return text.lower() in ("true", "1")


def _threads(config: Config) -> int:
    """Every instance is a process of its own: together they should fill the processors, not fight
    for them.
    """
    instances = sum(int(group.get("count") or 1) for group in config.get("instance_group") or [{}])
    return max(1, len(os.sched_getaffinity(0)) // max(1, instances))


def _session(config: Config, gpu: Optional[str] = None, complete: bool = True) -> InferenceSession:
    try:
        import onnxruntime
    except ImportError as err:
        raise pb_utils.TritonModelException(
            f"the onnxruntime package is missing in the environment of the server ({err})"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    level = int(((config.get("optimization") or {}).get("graph") or {}).get("level") or 0)
    options.graph_optimization_level = {
        -1: levels.ORT_ENABLE_BASIC,
        1: levels.ORT_ENABLE_EXTENDED,
        2: levels.ORT_DISABLE_ALL,
    }.get(level, levels.ORT_ENABLE_ALL)
    options.intra_op_num_threads = _whole(config, "intra_op_thread_count") or _threads(config)
    options.inter_op_num_threads = _whole(config, "inter_op_thread_count")
    # Threads that spin between requests take the processor from the other models' processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if _whole(config, "execution_mode"):
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    if _flag(config, "enable_mem_arena") is not None:
        options.enable_cpu_mem_arena = _flag(config, "enable_mem_arena")
    if _flag(config, "enable_mem_pattern") is not None:
        options.enable_mem_pattern = _flag(config, "enable_mem_pattern")
    for key in config.get("parameters") or {}:
        if key.startswith("session."):
            options.add_session_config_entry(key, _parameter(config, key) or "")
    if not complete:
        # Only names, types and shapes are wanted.
        options.graph_optimization_level = levels.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
    for library in (config.get("model_operations") or {}).get("op_library_filename") or []:
        options.register_custom_ops_library(library)
    providers: List[Any] = ["CPUExecutionProvider"]
    if gpu is not None and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": gpu}))
    path = _model_file(config)
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as err:
        raise pb_utils.TritonModelException(
            f"model file {path} cannot be loaded: {_plain(err)}"
        ) from None


def _plain(err: Exception) -> str:
    """onnxruntime's text without its prefix and source locations."""
    text = " ".join(str(err).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text


# ---- configuration -------------------------------------------------------------------------------


CONTROL_TYPES = {
    "int32_false_true": "TYPE_INT32",
    "fp32_false_true": "TYPE_FP32",
    "bool_false_true": "TYPE_BOOL",
}


def _controls(config: Config) -> Dict[str, Dict[str, Any]]:
    """Control inputs of sequences by name, each as an input of a configuration: Triton itself adds
    them to every request, with one element for each sequence.
    """
    found: Dict[str, Dict[str, Any]] = {}
    for item in (config.get("sequence_batching") or {}).get("control_input") or []:
        for control in item.get("control") or []:
            kind = next((CONTROL_TYPES[key] for key in CONTROL_TYPES if control.get(key)), None)
            found[item["name"]] = {
                "name": item["name"],
                "data_type": kind or control.get("data_type"),
                "dims": [1],
            }
    return found


def _batch_inputs(config: Config) -> Dict[str, Dict[str, Any]]:
    """Entries of ``batch_input`` by the model's inputs that they fill."""
    return {
        name: entry
        for entry in config.get("batch_input") or []
        for name in entry.get("target_name") or []
    }


def _scattered(config: Config) -> Dict[str, str]:
    """Outputs of ``batch_output``, and the inputs whose shapes they get."""
    return {
        name: entry["source_input"][0]
        for entry in config.get("batch_output") or []
        for name in entry.get("target_name") or []
    }


def _complete(config: Config, signature: Signature) -> None:
    max_batch_size = int(config.get("max_batch_size") or 0)
    if signature.can_batch():
        if max_batch_size == 0:
            max_batch_size = config["max_batch_size"] = DEFAULT_MAX_BATCH_SIZE
        if max_batch_size > 1 and "sequence_batching" not in config:
            config.setdefault("dynamic_batching", {})
    elif max_batch_size:
        raise pb_utils.TritonModelException(
            f"autofill failed for model '{config['name']}': the model does not support batching"
            " (the first dimension of each input and output must be free) while max_batch_size is"
            f" {max_batch_size}"
        )
    # What no client sends is none of its inputs.
    made = {*_controls(config), *_batch_inputs(config)}
    asked = {name: tensor for name, tensor in signature.inputs.items() if name not in made}
    for key, tensors in (("input", asked), ("output", signature.outputs)):
        if not config.get(key):
            config[key] = [
                _completed_tensor(name, kind, dims, max_batch_size)
                for name, (kind, dims) in tensors.items()
            ]


def _completed_tensor(name: str, kind: str, dims: Dims, max_batch_size: int) -> Dict[str, Any]:
    found: Dict[str, Any] = {
        "name": name,
        "data_type": kind,
        "dims": dims[1:] if max_batch_size else list(dims),
    }
    if not found["dims"]:
        # Triton has no tensors without dimensions: the request has one of size 1 that the model
        # does not see.
        found["dims"] = [1]
        if max_batch_size:
            found["reshape"] = {"shape": []}
    return found


def _check(config: Config, signature: Signature) -> None:
    known = dict(signature.defaults, **signature.inputs)
    configured = {item["name"]: item for item in config.get("input") or []}
    controls, made = _controls(config), _batch_inputs(config)
    for name in (*configured, *controls, *made):
        if name not in known:
            raise pb_utils.TritonModelException(
                f"unexpected inference input '{name}', allowed inputs are:"
                f" {', '.join(sorted(known))}"
            )
    missing = sorted(set(signature.inputs) - {*configured, *controls, *made})
    if missing:
        raise pb_utils.TritonModelException(
            f"the configuration has no input '{missing[0]}', which the model needs"
        )
    for item in config.get("output") or []:
        if item["name"] not in signature.outputs:
            raise pb_utils.TritonModelException(
                f"unexpected inference output '{item['name']}', allowed outputs are:"
                f" {', '.join(sorted(signature.outputs))}"
            )
    batch = [-1] if int(config.get("max_batch_size") or 0) else []
    scattered = _scattered(config)
    for role, items, tensors in (
        ("input", configured.values(), known),
        ("control input", controls.values(), known),
        ("output", config.get("output") or [], signature.outputs),
    ):
        for item in items:
            kind, dims = tensors[item["name"]]
            # The batch of a ragged input is one row of all its elements, and what is scattered gets
            # the shape of its source.
            whole = [-1] if item.get("allow_ragged_batch") else None
            whole = dims if role == "output" and item["name"] in scattered else whole
            _check_tensor(role, item, batch, kind, dims, whole)
    for name, entry in made.items():
        if entry.get("data_type") != known[name][0]:
            raise pb_utils.TritonModelException(
                f"configuration expects datatype {entry.get('data_type')} for batch input '{name}',"
                f" model provides {known[name][0]}"
            )


def _check_tensor(
    role: str,
    item: Dict[str, Any],
    batch: Dims,
    kind: str,
    dims: Dims,
    whole: Optional[Dims],
) -> None:
    name = item["name"]
    if item["data_type"] != kind:
        raise pb_utils.TritonModelException(
            f"configuration expects datatype {item['data_type']} for {role} '{name}', model"
            f" provides {kind}"
        )
    shape = item["reshape"].get("shape") or [] if "reshape" in item else item["dims"]
    wanted = whole or batch + [int(size) for size in shape]
    if not dims or wanted == dims:
        return
    fits = len(wanted) == len(dims) and all(a == b or -1 in (a, b) for a, b in zip(wanted, dims))
    if not fits:
        raise pb_utils.TritonModelException(
            f"tensor '{name}': the model expects shape {dims}, the configuration specifies {wanted}"
            + (
                " (the first, free dimension being the batch, because max_batch_size is not 0)"
                if batch
                else ""
            )
        )


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
        # onnxruntime is not even imported for a complete one: this runs in a process of its own at
        # each load.
        if not (config.get("input") and config.get("output")):
            _complete(config, Signature(_session(config, complete=False)))
        return auto_complete_model_config

    def initialize(self, args: Dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        if (config.get("sequence_batching") or {}).get("state"):
            raise pb_utils.TritonModelException(
                "this backend keeps no state between requests of a sequence"
            )
        gpu = (
            args.get("model_instance_device_id")
            if args.get("model_instance_kind") == "GPU"
            else None
        )
        self._verified = Verified(args, config)
        self._session = _session(config, gpu)
        # Asked of the session: a provider that is there and finds no CUDA libraries gives way to
        # the CPU as well.
        if gpu is not None and "CUDAExecutionProvider" not in self._session.get_providers():
            pb_utils.Logger.log_warn(
                f"model '{args['model_name']}': onnxruntime has no CUDA here, so that the instance"
                f" on GPU {gpu} computes on the CPU"
            )
        signature = Signature(self._session)
        _check(config, signature)
        self._batching = int(config.get("max_batch_size") or 0) > 0
        self._needed = set(signature.inputs)
        self._made = _batch_inputs(config)
        self._ragged = {
            item["name"] for item in config.get("input") or [] if item.get("allow_ragged_batch")
        }
        self._scattered = _scattered(config)
        known = {**signature.defaults, **signature.inputs}
        self._strings = {name for name, (kind, _dims) in known.items() if kind == "TYPE_STRING"}
        self._scalars = {
            item["name"]
            for item in config.get("input") or []
            if not self._batching
            and not known[item["name"]][1]
            and [int(size) for size in item["dims"]] == [1]
        }

    def execute(
        self, requests: Sequence[pb_utils.InferenceRequest]
    ) -> List[Optional[pb_utils.InferenceResponse]]:
        responses: List[Optional[pb_utils.InferenceResponse]] = [None] * len(requests)
        groups: Dict[Any, List[Member]] = {}
        for index, request in enumerate(requests):
            try:
                feed, wanted = self._feed(request), tuple(request.requested_output_names())
            except ValueError as err:
                responses[index] = _failure(str(err))
                continue
            key: Any = index
            # A batch of one request is one too: what belongs to whole batches stays simple so.
            if self._batching and not (self._made or self._ragged or self._scattered):
                key = (wanted, tuple((name, value.shape[1:]) for name, value in feed.items()))
            groups.setdefault(key, []).append((index, feed, wanted))
        for members in groups.values():
            if len(members) > 1 and self._run_together(members, responses):
                continue
            for index, feed, wanted in members:
                responses[index] = self._run(feed, wanted)
        self._verified.count(requests)
        return responses

    def finalize(self) -> None:
        del self._session

    def _feed(self, request: pb_utils.InferenceRequest) -> Feed:
        feed: Feed = {}
        for tensor in request.inputs():
            name, value = tensor.name(), tensor.as_numpy()
            if name in self._scalars:
                value = value.reshape(())
            feed[name] = _strings(name, value) if name in self._strings else value
        made = {name: _batch_input(entry, feed) for name, entry in self._made.items()}
        feed.update(made)
        missing = self._needed - set(feed)
        if missing:
            raise ValueError(
                f"input '{min(missing)}' is missing in the request: the model has no default for it"
            )
        return feed

    def _run(self, feed: Feed, wanted: Tuple[str, ...]) -> pb_utils.InferenceResponse:
        shapes_sent = {name: value.shape for name, value in feed.items()}
        flat = {
            name: value.reshape(-1) if name in self._ragged else value
            for name, value in feed.items()
        }
        try:
            values = self._session.run(list(wanted), flat)
        except Exception as err:
            shapes = ", ".join(f"'{name}' {list(value.shape)}" for name, value in feed.items())
            return _failure(f"inference failed for input {shapes}: {_plain(err)}")
        for index, name in enumerate(wanted):
            shape = shapes_sent.get(self._scattered.get(name, ""))
            if shape is not None and values[index].size == np.prod(shape):
                values[index] = values[index].reshape(shape)
        return _answer(wanted, values)

    def _run_together(
        self, members: List[Member], responses: List[Optional[pb_utils.InferenceResponse]]
    ) -> bool:
        """One run for requests of equal shape; False leaves them to be run, and to fail, one by
        one.
        """
        feeds = [feed for _index, feed, _wanted in members]
        sizes = [len(next(iter(feed.values()))) for feed in feeds]
        wanted = members[0][2]
        try:
            merged = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
            values = self._session.run(list(wanted), merged)
        except Exception:
            return False
        total = sum(sizes)
        if any(value.ndim == 0 or len(value) != total for value in values):
            return False
        start = 0
        for (index, _feed, _wanted), size in zip(members, sizes):
            responses[index] = _answer(wanted, [value[start : start + size] for value in values])
            start += size
        return True


def _batch_input(entry: Config, feed: Feed) -> NDArray[Any]:
    """What Triton's schema says of a ``batch_input``, for a batch that is one request."""
    source, kind = entry["source_input"][0], entry.get("kind") or "BATCH_ELEMENT_COUNT"
    if source not in feed:
        raise ValueError(f"input '{source}' is missing in the request")
    shape = feed[source].shape
    dtype = pb_utils.triton_string_to_numpy(entry["data_type"])
    count = int(np.prod(shape))
    if kind in ("BATCH_ELEMENT_COUNT", "BATCH_ACCUMULATED_ELEMENT_COUNT"):
        return np.array([count], dtype)
    if kind == "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO":
        return np.array([0, count], dtype)
    if kind == "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE":
        return np.zeros(count, dtype)
    rows: NDArray[Any] = np.array([shape[1:]] * shape[0], dtype)
    return rows.reshape(-1) if kind == "BATCH_ITEM_SHAPE_FLATTEN" else rows


def _strings(name: str, value: NDArray[Any]) -> NDArray[Any]:
    texts = np.empty(value.size, dtype=np.object_)
    try:
        texts[:] = [
            item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in value.ravel()
        ]
    except UnicodeDecodeError as err:
        raise ValueError(
            f"input '{name}' holds a string that is not UTF-8 ({err.reason} at byte {err.start})"
        ) from None
    return texts.reshape(value.shape)


def _answer(names: Iterable[str], values: Iterable[NDArray[Any]]) -> pb_utils.InferenceResponse:
    # Triton has no tensors without dimensions.
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor(name, value if value.ndim else value.reshape(1))
            for name, value in zip(names, values)
        ]
    )


def _failure(text: str) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(
        error=pb_utils.TritonError(text, pb_utils.TritonError.INVALID_ARG)
    )
