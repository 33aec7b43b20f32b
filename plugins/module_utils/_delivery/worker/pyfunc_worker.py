# SPDX-License-Identifier: Apache-2.0
"""The process that has a model of MLflow loaded and answers for it, in the model's environment.

Started by ``model.py`` beside it, which speaks with Triton and says how (``START``). Standard
library, and what the model's environment has: numpy, pandas, MLflow. Any Python from 3.8 on.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any

from . import pyfunc_wire as wire

MOST_TEXT = 2000
"""Characters of an error: a library may quote the whole input in one."""
_PDEATHSIG = 1
_OOM_SCORE = 800

NUMPY_TYPES = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
TRITON_TYPES = {numpy_type: triton_type for triton_type, numpy_type in NUMPY_TYPES.items()}
COLUMN_TYPES = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
}
TEXT_TYPES = ("string", "str", "object")
BINARY_TYPES = ("binary", "bytes")


class Refused(Exception):
    """A sentence for whoever asked."""


def one_sentence(err: BaseException) -> str:
    """Type and text in one line. What a model says when it ends its process counts too."""
    if isinstance(err, Refused):
        return shorten(str(err))
    if isinstance(err, SystemExit):
        return f"the model called sys.exit({'' if err.code is None else shorten(repr(err.code))})"
    if isinstance(err, MemoryError):
        return "there was not enough memory for this request"
    return shorten(f"{type(err).__name__}: {err}")


def shorten(text: str) -> str:
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= MOST_TEXT else line[:MOST_TEXT] + " …"


# --- what comes in --------------------------------------------------------------------------------


def array_of(triton_type: str, shape: list[int], raw: memoryview) -> Any:
    """A copy: the model may keep or change its input, and the memory is used again."""
    import numpy as np

    if triton_type == "BYTES":
        count = 1
        for each in shape:
            count *= each
        values = np.empty(count, dtype=object)
        values[:] = wire.unpack_texts(raw, count)
        return values.reshape(shape)
    return np.frombuffer(raw, dtype=NUMPY_TYPES[triton_type]).reshape(shape).copy()


def texts_of(name: str, values: Any) -> Any:
    import numpy as np

    found = np.empty(values.shape, dtype=object)
    try:
        found.ravel()[:] = [each.decode("utf-8") for each in values.ravel().tolist()]
    except UnicodeDecodeError as err:
        raise Refused(f"input {name!r} holds text that is not UTF-8") from err
    return found


def times_of(name: str, values: Any) -> Any:
    """datetime64[ns] of ISO 8601 texts; a time with a zone is said in UTC."""
    import pandas as pd

    texts = pd.Series(texts_of(name, values), dtype=object)
    known = {"format": "ISO8601"} if int(pd.__version__.partition(".")[0]) >= 2 else {}
    try:
        zoned = any(each[10:].endswith("Z") or "+" in each[10:] for each in texts)
        found = pd.to_datetime(texts, utc=True if zoned else None, **known)
        if found.dt.tz is not None:
            found = found.dt.tz_convert("UTC").dt.tz_localize(None)
        return found.astype("datetime64[ns]")
    except (ValueError, OverflowError, AttributeError) as err:
        raise Refused(
            f"input {name!r} holds a time that is not ISO 8601 between 1677 and 2262: "
            f"{shorten(str(err))[:200]}"
        ) from err


def column_of(spec: dict[str, Any], values: Any) -> Any:
    """What MLflow's own server makes of a column of this type."""
    import pandas as pd

    name, kind, rows = spec["name"], spec["type"], values.reshape(-1)
    if kind in COLUMN_TYPES:
        return rows.astype(COLUMN_TYPES[kind], copy=False)
    if kind == "string":
        return pd.Series(texts_of(name, rows), dtype=object)
    if kind == "datetime":
        return times_of(name, rows)
    return pd.Series(rows, dtype=object)


def tensor_of(spec: dict[str, Any], values: Any) -> Any:
    import numpy as np

    if spec["type"] in TEXT_TYPES and values.dtype == object:
        texts = texts_of(spec["name"], values)
        return texts if spec["type"] == "object" else texts.astype(np.str_)
    if spec["type"] in BINARY_TYPES and values.dtype == object:
        if any(each.endswith(b"\0") for each in values.ravel().tolist()):
            raise Refused(f"input {spec['name']!r} holds bytes that end with 0, which numpy drops")
        return values.astype(np.bytes_)
    shape = spec.get("shape") or []
    return values.reshape(-1) if len(shape) == 1 and values.ndim == 2 else values


def param_of(spec: dict[str, Any], given: Any) -> Any:
    """A param of the signature's type: Triton's parameters carry texts, numbers and truths."""
    kind = spec["type"]
    try:
        if spec.get("shape") or kind not in (*COLUMN_TYPES, "string", "datetime", "binary"):
            return json.loads(given) if isinstance(given, str) else given
        if kind == "boolean":
            known = {True: True, False: False, "true": True, "false": False}
            return known[given.lower() if isinstance(given, str) else given]
        if isinstance(given, bool):
            raise ValueError("true and false are no numbers or texts")
        if kind in ("integer", "long"):
            whole = int(given)
            if whole != (float(given) if isinstance(given, float) else int(given)):
                raise ValueError("it has a fraction")
            return whole
        if kind in ("float", "double"):
            return float(given)
        if not isinstance(given, str):
            raise ValueError("it is no text")
        return given
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise Refused(
            f"param {spec['name']!r} is {shorten(repr(given))[:100]}, which is no {kind}"
            + (" array in JSON" if spec.get("shape") else "")
        ) from err


# --- what goes out --------------------------------------------------------------------------------


def kind_of(answer: Any) -> str:
    import numpy as np
    import pandas as pd

    if isinstance(answer, pd.DataFrame):
        return "frame"
    if isinstance(answer, pd.Series):
        return "series"
    if isinstance(answer, np.ndarray):
        return "array"
    if isinstance(answer, dict):
        return "dict"
    if isinstance(answer, (list, tuple)):
        return "list"
    if hasattr(answer, "toarray"):
        raise Refused(
            "the model answered with a sparse matrix, which its signature does not describe"
        )
    if hasattr(answer, "__array__"):
        return "array"
    raise Refused(f"the model answered with a {type(answer).__name__}, which is no array or table")


def values_by_output(outputs: list[dict[str, Any]], answer: Any, kind: str) -> list[Any]:
    """What the model answered for each output of its signature, and nothing left over."""
    import numpy as np

    if kind in ("frame", "dict"):
        there = {str(each): each for each in answer}
        wanted = [
            str(spec["column"] if spec.get("column") is not None else spec["name"])
            for spec in outputs
        ]
        if len(outputs) == 1 and outputs[0].get("column") is None and len(there) == 1:
            wanted = list(there)
        missing = [name for name in wanted if name not in there]
        unknown = [name for name in there if name not in wanted]
        if missing or unknown or len(there) != len(list(answer)):
            raise Refused(
                f"the model answered with {', '.join(map(repr, there)) or 'nothing'}, "
                f"and its signature says {', '.join(map(repr, wanted))}"
            )
        return [answer[there[name]] for name in wanted]
    if len(outputs) == 1:
        return [answer]
    if kind == "list":
        raise Refused(f"the model answered with a list, and its signature has {len(outputs)} names")
    table = np.asarray(answer)
    if table.ndim != 2 or table.shape[1] != len(outputs):
        raise Refused(
            f"the model answered with shape {list(table.shape)}, and its signature has "
            f"{len(outputs)} columns"
        )
    return [table[:, place] for place in range(len(outputs))]


def plain_array(values: Any) -> Any:
    """A numpy array of what a column, an array or a list holds, without a guess about its type."""
    import numpy as np
    import pandas as pd

    if isinstance(values, (pd.Series, pd.DataFrame)):
        dtypes = [values.dtype] if isinstance(values, pd.Series) else list(values.dtypes)
        if all(isinstance(each, np.dtype) for each in dtypes):
            return values.to_numpy()
        if getattr(dtypes[0], "tz", None) is not None:
            raise Refused("the model answered with times that have a zone")
        found = values.to_numpy(dtype=object)
        is_text = isinstance(dtypes[0], pd.StringDtype)
        return found if is_text else np.array(found.tolist(), dtype=None)
    if isinstance(values, (list, tuple)):
        try:
            found = np.array(values)
        except ValueError as err:
            raise Refused("the model answered with lists of different lengths") from err
        # numpy makes texts of numbers that stand beside a text.
        return np.array(values, dtype=object) if found.dtype.kind in "US" else found
    return np.asarray(values)


def encode(spec: dict[str, Any], values: Any) -> tuple[str, list[int], memoryview]:
    """(Triton's type, shape, bytes) of an output; exactly these values, or a sentence."""
    import numpy as np

    found = plain_array(values)
    found = shaped(spec, found)
    kind = spec["type"]
    if kind == "datetime" or kind in TEXT_TYPES or kind in BINARY_TYPES:
        texts = encode_texts(spec, found)
        return "BYTES", list(found.shape), wire.pack_texts(texts)
    wanted = np.dtype(COLUMN_TYPES.get(kind, kind))
    exact = np.ascontiguousarray(exactly(spec, found, wanted))
    raw = exact.data.cast("B") if exact.size else memoryview(b"")
    return TRITON_TYPES[wanted.name], list(exact.shape), raw


def shaped(spec: dict[str, Any], found: Any) -> Any:
    """As the signature says; a column is [rows, 1] for Triton."""
    name = spec["name"]
    if spec.get("kind") == "tensor" and spec.get("shape") is not None:
        shape = list(spec["shape"])
        fits = len(shape) == found.ndim and all(
            want in (-1, is_) for want, is_ in zip(shape, found.shape)
        )
        if not fits:
            raise Refused(
                f"output {name!r} has shape {list(found.shape)}, and its signature says {shape}"
            )
        return found.reshape(-1, 1) if shape == [-1] else found
    if found.ndim == 2 and found.shape[1] == 1:
        return found
    if found.ndim != 1:
        raise Refused(
            f"output {name!r} has shape {list(found.shape)}, and its signature says one column"
        )
    return found.reshape(-1, 1)


def isnan(found: Any) -> Any:
    """Where there is no number; whole numbers have none such."""
    import numpy as np

    if found.dtype.kind != "f":
        return np.zeros(found.shape, dtype=bool)
    return np.isnan(found)


def exactly(spec: dict[str, Any], found: Any, wanted: Any) -> Any:
    """The same values in the declared type."""
    import numpy as np

    if found.dtype == object and found.size:
        # A column of Python's own numbers, or with a None that no number stands for.
        plain = np.array(found.tolist())
        if plain.dtype != object and plain.shape == found.shape:
            found = plain
    if found.dtype == wanted:
        return found
    numbers = "iuf"
    if found.dtype.kind in numbers and wanted.kind in numbers or not found.size:
        with np.errstate(all="ignore"):
            same = found.astype(wanted)
            back = same.astype(found.dtype)
        equal = (back == found) | (isnan(back) & isnan(found))
        # A whole number at the end of a type's range comes back equal by overflow.
        if equal.all() and ((same < 0) == (found < 0)).all():
            return same
    raise Refused(
        f"output {spec['name']!r} is {found.dtype}, whose values are not all exact as "
        f"{spec['type']}, the type that the signature says"
    )


def encode_texts(spec: dict[str, Any], found: Any) -> list[bytes]:
    import numpy as np

    kind = spec["type"]
    if kind == "datetime":
        if found.dtype == object:
            with contextlib.suppress(ValueError, TypeError):
                found = np.array(found.tolist(), dtype="datetime64[ns]")
        if found.dtype.kind == "M":
            precise = found.astype("datetime64[ns]")
            if (precise.astype(found.dtype) == found)[~np.isnat(found)].all():
                return [each.encode() for each in np.datetime_as_string(precise).ravel().tolist()]
        raise Refused(f"output {spec['name']!r} is {found.dtype}, and its signature says datetime")
    values = found.ravel().tolist()
    kinds = {type(each).__name__ for each in values}
    if kind in BINARY_TYPES:
        if all(isinstance(each, (bytes, bytearray)) for each in values):
            return [bytes(each) for each in values]
    elif all(isinstance(each, str) for each in values):
        try:
            return [each.encode("utf-8") for each in values]
        except UnicodeEncodeError as err:
            raise Refused(f"output {spec['name']!r} holds text that UTF-8 cannot say") from err
    raise Refused(
        f"output {spec['name']!r} holds {' and '.join(sorted(kinds))}, which cannot be said as "
        f"{kind}, the type that the signature says"
    )


# --- the model ------------------------------------------------------------------------------------


class Noting:
    """A loaded model that notes what kind of value it returned; None where that has no name."""

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded
        self.kind: str | None = None

    def predict(self, *given: Any, **named: Any) -> Any:
        answer = self._loaded.predict(*given, **named)
        with contextlib.suppress(Refused):
            self.kind = kind_of(answer)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loaded, name)


class Model:
    """A loaded model and what its settings say of its tensors."""

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.inputs = {spec["name"]: spec for spec in settings["inputs"]}
        self.params = {spec["name"]: spec for spec in settings.get("params") or []}
        import mlflow.pyfunc

        self.loaded = mlflow.pyfunc.load_model(os.path.join(folder, "model"))
        self.schema = self._input_schema()

    def _input_schema(self) -> Any:
        metadata = self.loaded.metadata
        return metadata.get_input_schema() if hasattr(metadata, "get_input_schema") else None

    def answer(self, header: dict[str, Any], parts: list[memoryview]) -> Any:
        """(header, parts) of the answer."""
        params = {
            name: param_of(self.params[name], given)
            for name, given in (header.get("params") or {}).items()
            if name in self.params
        }
        if self.settings["form"] == "json":
            noting = Noting(self.loaded)
            document = self._answer_document(bytes(parts[0]), params, noting)
            return {"answer": noting.kind}, [[memoryview(document)]]
        answer = self.predict(self._input_of(header["tensors"], parts), params)
        kind = kind_of(answer)
        outputs = self.settings["outputs"]
        encoded = [
            encode(spec, values)
            for spec, values in zip(outputs, values_by_output(outputs, answer, kind))
        ]
        self._check_rows(encoded, header.get("rows"))
        told = [[spec["name"], made, shape] for spec, (made, shape, _raw) in zip(outputs, encoded)]
        return {"answer": kind, "tensors": told}, [[raw] for _made, _shape, raw in encoded]

    def _check_rows(self, encoded: list[Any], rows: int | None) -> None:
        """A model whose rows are independent answers each of them, or it cannot be batched."""
        if rows is None:
            return
        for spec, (_made, shape, _raw) in zip(self.settings["outputs"], encoded):
            if shape[:1] != [rows]:
                raise Refused(
                    f"output {spec['name']!r} has {shape[0] if shape else 'no'} rows for {rows} "
                    "rows of input"
                )

    def predict(self, data: Any, params: dict[str, Any]) -> Any:
        return self.loaded.predict(data, params=params) if params else self.loaded.predict(data)

    def _input_of(self, tensors: list[Any], parts: list[memoryview]) -> Any:
        found = {
            name: array_of(kind, shape, raw) for (name, kind, shape), raw in zip(tensors, parts)
        }
        missing = [
            name
            for name, spec in self.inputs.items()
            if name not in found and spec.get("required", True)
        ]
        if missing:
            raise Refused(f"input {', '.join(map(repr, missing))} is missing")
        if any(spec.get("kind") == "tensor" for spec in self.inputs.values()):
            made = {
                name: tensor_of(spec, found[name])
                for name, spec in self.inputs.items()
                if name in found
            }
            named = self.schema is None or self.schema.has_input_names()
            return made if named else next(iter(made.values()))
        import pandas as pd

        return pd.DataFrame(
            {
                self._column(spec): column_of(spec, found[name])
                for name, spec in self.inputs.items()
                if name in found
            }
        )

    @staticmethod
    def _column(spec: dict[str, Any]) -> Any:
        return spec["column"] if spec.get("column") is not None else spec["name"]

    def _answer_document(self, document: bytes, params: dict[str, Any], noting: Noting) -> bytes:
        """As MLflow's own scoring server of this environment reads and writes it."""
        if params:
            told = json.loads(document)
            if isinstance(told, dict):
                told["params"] = {**params, **(told.get("params") or {})}
                document = json.dumps(told).encode()
        try:
            from mlflow.pyfunc import scoring_server
        except ImportError:
            # Releases before 2.17 import their web server with it, which mlflow-skinny lacks.
            return self._answer_without_server(document, noting)
        if not hasattr(scoring_server, "invocations"):
            return self._answer_without_server(document, noting)
        made = scoring_server.invocations(
            document.decode("utf-8"), "application/json", noting, self.schema
        )
        if made.status != 200:
            raise Refused(str(made.response))
        text = made.response
        return text.encode("utf-8") if isinstance(text, str) else bytes(text)

    def _answer_without_server(self, document: bytes, noting: Noting) -> bytes:
        from mlflow.utils import proto_json_utils as readers

        told = json.loads(document)
        forms = {"dataframe_split", "dataframe_records", "instances", "inputs"}
        named = forms & set(told) if isinstance(told, dict) else set()
        if len(named) != 1:
            raise Refused(f"the request must have exactly one of {', '.join(sorted(forms))}")
        form = named.pop()
        if form in ("instances", "inputs"):
            data = readers.parse_tf_serving_input({form: told[form]}, schema=self.schema)
        else:
            data = readers.dataframe_from_parsed_json(
                told[form], pandas_orient=form[len("dataframe_") :], schema=self.schema
            )
        params = told.get("params")
        answer = noting.predict(data, params=params) if params else noting.predict(data)
        plain = readers._get_jsonable_obj(answer, pandas_orient="records")
        return json.dumps({"predictions": plain}, cls=readers.NumpyEncoder).encode()


# --- the process ----------------------------------------------------------------------------------


def end_with(parent: int) -> None:
    """The kernel ends this process when the thread that started it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def leave_signals_to_parent() -> None:
    """A supervisor that asks every process to end means the server: it answers what is under way,
    and then closes the connection. Processes of the model itself go on as usual.
    """

    def nothing(_number: int, _frame: object) -> None:
        return

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, nothing)
        os.register_at_fork(
            after_in_child=lambda given=number: signal.signal(given, signal.SIG_DFL)
        )


def be_first_to_go() -> None:
    """When memory is short, this process ends and the server does not."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < _OOM_SCORE:
            file.seek(0)
            file.write(str(_OOM_SCORE))


def serve(channel: Any, model: Model) -> None:
    """Until the other side closes the connection."""
    while True:
        try:
            header, parts = channel.receive()
        except wire.Ended:
            return
        channel.done()
        try:
            told, made = model.answer(header, parts)
            answer: tuple[dict[str, Any], Any] = {**told, "call": header.get("call")}, made
        except BaseException as err:
            if not isinstance(err, Refused):
                # The model's own frames: those of this file and of MLflow are the same each time.
                traceback.print_exc(limit=-4)
            answer = {"error": one_sentence(err), "call": header.get("call")}, ()
        del parts
        sys.stdout.flush()
        try:
            channel.send(*answer)
        except wire.Ended:
            return
        except (wire.WireError, OSError, MemoryError) as err:
            channel.send({"error": one_sentence(err), "call": header.get("call")})
        del answer


def main() -> int:
    path, descriptor, parent = sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    end_with(parent)
    leave_signals_to_parent()
    be_first_to_go()
    # What the model prints must find neither the connection nor a closed descriptor.
    connection = socket.socket(fileno=os.dup(descriptor))
    os.close(descriptor)
    connection.set_inheritable(False)
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
        sys.stderr.reconfigure(errors="backslashreplace", line_buffering=True)
    channel = wire.Channel(connection)
    try:
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
        model = Model(os.path.dirname(os.path.abspath(path)), settings)
    except BaseException as err:
        traceback.print_exc()
        sys.stderr.flush()
        with contextlib.suppress(wire.Ended):
            channel.send({"error": one_sentence(err)})
        return 1
    channel.send({"ready": True, "protocol": wire.PROTOCOL, "python": sys.version.split()[0]})
    serve(channel, model)
    return 0
