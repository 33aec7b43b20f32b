# SPDX-License-Identifier: Apache-2.0
"""What a served configuration says of a model that MLflow's pyfunc runs: how it is asked and what
it answers. Pure.

Whoever may write the configuration wrote it: what has another shape is no such model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .fields import Fields, WrongShape, read_json

PYFUNC_KEY = "mlops_triton_pyfunc"
"""The parameter of a configuration that has it, as JSON."""
ASKS = "mlops_triton_asks"
"""A request with this parameter is told what kind of value pyfunc returned."""
KINDS = ("frame", "series", "array", "list", "dict")
"""By as many dimensions of size 1 behind the shapes of the outputs: one for the first of these."""
SCALARS = frozenset(
    {"boolean", "integer", "long", "float", "double", "string", "binary", "datetime"}
)
"""MLflow's types whose values are one value each; columns of other types have nested ones."""
_MOST_VALUES = 100_000
_FORMS = ("tensors", "json")
_KINDS = ("column", "tensor")


@dataclass(frozen=True)
class SignatureField:
    """One input, output or param of a signature.

    Attributes:
        name: that of its tensor, where tensors are sent, else that of the signature.
        type: MLflow's name of a scalar type, numpy's name of a tensor's, or the nested type as the
            signature writes it.
        is_tensor: an array of numpy, and no column of a table.
        shape: as the signature has it; None of columns.
        column: the name that it has in the signature, and so in what pyfunc takes or returns; None
            where it has none.
    """

    name: str | None
    type: object
    required: bool = True
    is_tensor: bool = False
    shape: tuple[int, ...] | None = None
    column: str | None = None

    @property
    def is_scalar(self) -> bool:
        return not self.is_tensor and isinstance(self.type, str) and self.type in SCALARS


@dataclass(frozen=True)
class ServedPyfunc:
    """Attributes:
    in_json: requests and answers are documents of MLflow's scoring server; else tensors.
    inputs, outputs: empty where the signature has none.
    params: by name.
    """

    in_json: bool
    inputs: tuple[SignatureField, ...] = ()
    outputs: tuple[SignatureField, ...] = ()
    params: Mapping[str, SignatureField] = field(default_factory=dict)

    @property
    def has_named_columns(self) -> bool:
        """Its input is a table, whose columns the signature names."""
        names = [one.name for one in self.inputs if not one.is_tensor and one.name is not None]
        return 0 < len({*names}) == len(self.inputs)


def served_pyfunc(config: Mapping[str, Any]) -> ServedPyfunc | None:
    """Of a configuration as Triton's servers show it; None of a model that pyfunc does not run, and
    of one that says so in another shape.
    """
    parameters = config.get("parameters")
    entry = parameters.get(PYFUNC_KEY) if isinstance(parameters, Mapping) else None
    text = entry.get("string_value") if isinstance(entry, Mapping) else None
    if not text or not isinstance(text, str):
        return None
    try:
        return _read(Fields(read_json(text.encode(errors="surrogatepass"), _MOST_VALUES)))
    except (WrongShape, UnicodeDecodeError):
        return None


def _read(fields: Fields) -> ServedPyfunc:
    form = fields.text("form")
    if form not in _FORMS:
        raise fields.wrong("form", f"one of {', '.join(_FORMS)}")
    inputs = tuple(_field(one) for one in fields.objects("inputs"))
    outputs = tuple(_field(one) for one in fields.objects("outputs"))
    params = {one.text("name"): _field(one) for one in fields.objects("params")}
    in_json = form == "json"
    if not in_json and not all(
        one.name and (one.is_tensor or one.is_scalar) for one in (*inputs, *outputs)
    ):
        raise fields.wrong("inputs", "of types that tensors have")
    return ServedPyfunc(in_json, inputs, outputs, params)


def _field(fields: Fields) -> SignatureField:
    kind = fields.text_or("kind", "column")
    if kind not in _KINDS:
        raise fields.wrong("kind", f"one of {', '.join(_KINDS)}")
    given = fields.data.get("type")
    if not isinstance(given, (str, Mapping)) or not given:
        raise fields.wrong("type", "a type")
    column = fields.data.get("column", fields.data.get("name"))
    return SignatureField(
        fields.text("name") if isinstance(fields.data.get("name"), str) else None,
        given,
        fields.data.get("required") is not False,
        kind == "tensor",
        _shape(fields),
        column if isinstance(column, str) else None,
    )


def _shape(fields: Fields) -> tuple[int, ...] | None:
    if fields.data.get("shape") is None:
        return None
    sizes = fields.each("shape")
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= -1 for one in sizes):
        raise fields.wrong("shape", "a list of sizes")
    return tuple(sizes)
