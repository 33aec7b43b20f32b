# SPDX-License-Identifier: Apache-2.0
"""Models for which MLflow's own code answers: which these are, and the model folder of one.

Which way a model is served is decided by its metadata alone, and by the class that the first bytes
of a file of scikit-learn name, so that check mode knows it.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping

from .. import disk
from ..disk import hash_file
from ..domain import config_pbtxt
from ..domain.config_pbtxt import ModelConfig
from ..domain.layout import STEP, Artifact, Layout, Numbering, Serving
from ..domain.manifest import MANIFEST_NAME, FileEntry, Manifest
from ..domain.provenance import SIGNATURE_NAME
from ..domain.pyfunc import (
    INTERFACE_KEY,
    LARGEST_BATCH,
    MODEL_FOLDER,
    REQUEST,
    RESPONSE,
    ROW_BY_ROW,
    SETTINGS_NAME,
    Interface,
    Port,
    PyfuncSettings,
    interface_of,
)
from ..errors import ArtifactError
from ..formats.default_config import add_tensor, bare_config
from ..formats.mlmodel import tensors_of, types_in
from ..formats.sklearn_class import class_of
from ..formats.sklearn_to_treelite import knows_class
from ..outside import JsonObject

PYFUNC = "python_function"
REMEDY = "serve_as: pyfunc lets MLflow's own code answer for it, as it was logged"
_LEFT_OUT = frozenset({MANIFEST_NAME, SIGNATURE_NAME, config_pbtxt.CONFIG_NAME})
_NATIVE = ("triton", "onnx", "xgboost", "lightgbm", "sklearn", "pytorch")
_FLOATS = frozenset({"float", "double", "float16", "float32", "float64"})
_NUMBERS = _FLOATS.union(
    ("boolean", "integer", "long", "bool"),
    (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
_LIBRARIES = {"xgboost": "XGBoost", "lightgbm": "LightGBM"}


def flavors_of(artifact: Artifact) -> Mapping[str, object]:
    found = (artifact.mlmodel or {}).get("flavors")
    return found if isinstance(found, Mapping) else {}


def has_pyfunc(artifact: Artifact) -> bool:
    """MLflow can load it as ``python_function``."""
    entry = flavors_of(artifact).get(PYFUNC)
    return isinstance(entry, Mapping) and isinstance(entry.get("loader_module"), str)


def choose(artifact: Artifact, flavor: str | None, serving: Serving) -> tuple[str, str]:
    """Which way a model is served, "native" or "pyfunc", and why, as a part of a sentence.

    Args:
        flavor: the native one that the user names.

    Raises:
        ArtifactError: pyfunc is asked for, and MLflow cannot load it so.
    """
    if serving.serve_as == "pyfunc":
        if not has_pyfunc(artifact):
            raise ArtifactError(
                "serve_as: pyfunc needs a model of MLflow with the flavor python_function, and its"
                " MLmodel has none: leave serve_as out, or log the model with MLflow",
                step=STEP,
            )
        return "pyfunc", "serve_as says so"
    if serving.serve_as == "native":
        return "native", "serve_as says so"
    if not has_pyfunc(artifact):
        return "native", f"it has no flavor {PYFUNC}"
    if flavor:
        return "native", f"flavor: {flavor} says so"
    return _choose_by_metadata(artifact, serving)


def _choose_by_metadata(artifact: Artifact, serving: Serving) -> tuple[str, str]:
    flavors = flavors_of(artifact)
    name = next((one for one in _NATIVE if one in flavors), None)
    if name is None:
        if config_pbtxt.CONFIG_NAME in artifact.files:
            return "native", f"it has a {config_pbtxt.CONFIG_NAME}"
        others = [one for one in flavors if one != PYFUNC]
        return "pyfunc", (
            f"no backend of Triton runs flavor {', '.join(others)}"
            if others
            else "it is code that only MLflow runs"
        )
    if why := _why_not_native(name, artifact, serving):
        return "pyfunc", why
    if name == "sklearn":
        return _choose_for_sklearn(artifact, serving)
    return "native", f"a backend of Triton runs flavor {name}"


def _choose_for_sklearn(artifact: Artifact, serving: Serving) -> tuple[str, str]:
    kind = _class_of(artifact)
    differs = _why_forest_differs(artifact, kind) if kind and knows_class(kind) else None
    if kind and knows_class(kind) and not differs:
        return "native", f"a backend of Triton runs {kind.rpartition('.')[2]}"
    if serving.native_now == "sklearn":
        return "native", "what is deployed of it is"
    if serving.no_pyfunc:  # where it is no forest, the reader of its file says so
        return "native", serving.no_pyfunc
    if kind is None:
        return "pyfunc", "its metadata does not say that it is a forest"
    return "pyfunc", differs or f"no backend of Triton runs {kind.rpartition('.')[2]}"


def _entry(artifact: Artifact, flavor: str) -> JsonObject:
    entry = flavors_of(artifact).get(flavor)
    return entry if isinstance(entry, Mapping) else {}


def _why_forest_differs(artifact: Artifact, kind: str) -> str | None:
    """A backend takes numbers, and answers with those of predict_proba or predict."""
    takes, answers = (types_in(artifact.mlmodel, side) for side in ("inputs", "outputs"))
    if not all(one in _NUMBERS for one in takes):
        return "its signature has columns that are no numbers, and a backend takes no others"
    is_classifier = "Classifier" in kind.rpartition(".")[2]
    if not (all(one in _FLOATS for one in answers) if answers else not is_classifier):
        return "it answers with labels, and a backend with numbers of its own"
    return None


def _class_of(artifact: Artifact) -> str | None:
    """Of an sklearn model, where MLmodel names it or the first bytes of its file do."""
    entry = _entry(artifact, "sklearn")
    if isinstance(named := entry.get("model_class"), str):
        return named
    path = posixpath.normpath(str(entry.get("pickled_model") or "model.pkl"))
    size = artifact.files.get(path)
    if size is None:
        return None
    return class_of(lambda start, length: artifact.look(path, start, length), size)


def _why_not_native(name: str, artifact: Artifact, serving: Serving) -> str | None:
    """What the metadata says that no backend runs."""
    entry = _entry(artifact, name)
    if name in _LIBRARIES:
        named = entry.get("model_class")
        if isinstance(named, str) and not named.startswith(f"{name}."):
            return f"its class {named[:200]} is not {_LIBRARIES[name]}'s own"
    if name == "pytorch":
        if entry.get("serialization_format") == "pt2" or any(
            path.endswith(".pt2") for path in artifact.files
        ):
            return "it was made by torch.export, and Triton loads TorchScript"
        sides = [tensors_of(artifact.mlmodel, side) for side in ("inputs", "outputs")]
        if not all(sides) and not serving.has_tensors:
            return "its signature does not name the tensors that a backend needs"
        if any(not dims for _name, _type, dims in sides[1] or ()):
            return "an output has no dimension, and Triton's PyTorch backend answers no such tensor"
    return None


def layout_of_pyfunc(
    artifact: Artifact, flavor: str | None, numbering: Numbering, serving: Serving
) -> Layout:
    """The whole MLflow model, in a version folder, for the worker."""
    version = numbering.version()
    recorded = flavor or next((one for one in flavors_of(artifact) if one != PYFUNC), PYFUNC)
    interface = interface_of(artifact.mlmodel)
    asked = serving.batch_requests
    joins = interface.batched and (recorded in ROW_BY_ROW if asked is None else asked)
    root = f"{version}/{MODEL_FOLDER}"
    return Layout(
        recorded,
        tuple(
            (path, f"{root}/{path}", size)
            for path, size in sorted(artifact.files.items())
            if path not in _LEFT_OUT
        ),
        tuple(sorted(f"{root}/{folder}" for folder in artifact.folders)),
        config_pbtxt.render(pyfunc_config(interface, joins)),
        (version,),
        (1,),
        conversion="pyfunc",
        pyfunc=interface,
        joins_requests=joins,
        warnings=_warn_of_batches(interface) if asked and not joins else (),
    )


def _warn_of_batches(interface: Interface) -> tuple[str, ...]:
    why = interface.reason or "its tensors have a fixed number of rows"
    return (f"batch_requests: true changes nothing, as its requests cannot be joined ({why})",)


def pyfunc_config(interface: Interface, joins: bool) -> ModelConfig:
    """The whole configuration: Triton completes nothing."""
    config = bare_config("python")
    if interface.form == "json":
        add_tensor(config.input, (REQUEST, "TYPE_STRING", [1]))
        add_tensor(config.output, (RESPONSE, "TYPE_STRING", [1]))
    else:
        config.max_batch_size = LARGEST_BATCH if interface.batched else 0
        for port in interface.inputs:
            add_tensor(config.input, (port.name, port.triton_type, _dims(port, interface.batched)))
            if not port.required:
                config.input[-1].optional = True
        for port in interface.outputs:
            add_tensor(config.output, (port.name, port.triton_type, _dims(port, interface.batched)))
    # Without one, Triton starts an instance on each GPU of a host that has some.
    group = config.instance_group.add()
    group.count, group.kind = 1, group.KIND_CPU
    if joins:
        config.dynamic_batching.SetInParent()
    text = json.dumps(interface.to_dict(), sort_keys=True, separators=(",", ":"))
    config.parameters[INTERFACE_KEY].string_value = text
    return config


def _dims(port: Port, batched: bool) -> tuple[int, ...]:
    if port.shape is None:
        return (1,)
    return (port.shape[1:] or (1,)) if batched else port.shape


def add_worker(
    layout: Layout,
    staged: str,
    manifest: Manifest,
    programs: Mapping[str, bytes],
    settings: PyfuncSettings,
) -> Manifest:
    """Lay worker and settings beside the model, in staging.

    Returns:
        What lies there now.
    """
    entries = {entry.path: entry for entry in manifest.files}
    for version in layout.versions:
        for name, data in {**programs, SETTINGS_NAME: settings.to_bytes()}.items():
            target = f"{version}/{name}"
            whole = os.path.join(staged, target)
            disk.write_file(whole, data)
            entries[target] = FileEntry(target, len(data), hash_file(whole))
    return Manifest.of(entries.values(), manifest.folders)
