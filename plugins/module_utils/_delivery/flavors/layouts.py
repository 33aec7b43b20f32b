# SPDX-License-Identifier: Apache-2.0
"""From an artifact's file list to a model folder in Triton's layout."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ..domain import config_pbtxt
from ..domain.config_pbtxt import ModelConfig
from ..domain.layout import (
    EXAMPLES,
    MLFLOW_FILES,
    MLFLOW_FOLDERS,
    Artifact,
    Layout,
    Numbering,
    Serving,
    listed,
)
from ..domain.provenance import SIGNATURE_NAME
from ..errors import ArtifactError
from ..formats.mlmodel import columns_of
from ..outside import JsonObject
from .mlflow_layouts import MLFLOW_MAKERS, why_not
from .pyfunc import choose, has_pyfunc, layout_of_pyfunc

_VERSION_LIMIT = 2**63
_LARGEST_EXAMPLE = 1 << 16
# numpy's arrays have 64 dimensions at most.
_DEEPEST_EXAMPLE = 70


def layout_of(
    artifact: Artifact,
    flavor: str | None,
    numbering: Numbering,
    serving: Serving = Serving(),  # noqa: B008
) -> Layout:
    """Find the model in an artifact.

    Raises:
        ArtifactError: no model, two models, no version folder, or a flavor that cannot be served.
        ConfigError: config.pbtxt does not parse.
    """
    way, why = choose(artifact, flavor, serving)
    if way == "pyfunc":
        chosen, made = way, layout_of_pyfunc(artifact, flavor, numbering, serving)
    else:
        chosen = flavor or _flavor(artifact)
        made = _MAKERS[chosen](artifact, numbering)
    example, why_no_example = _example(artifact)
    return replace(
        made,
        served_as=way,
        why=why,
        has_pyfunc=has_pyfunc(artifact) and not serving.no_pyfunc,
        provenance=artifact.provenance,
        said_keys=artifact.said_keys,
        example=example,
        why_no_example=why_no_example,
        columns=columns_of(artifact.mlmodel) if made.is_configured_later else (),
        warnings=(*made.warnings, *_unused_config(artifact, chosen)),
    )


def _unused_config(artifact: Artifact, flavor: str) -> tuple[str, ...]:
    """A configuration is made for what becomes another file, whose inputs are not the author's."""
    if (
        flavor not in ("xgboost", "lightgbm", "sklearn", "pytorch", "pyfunc")
        or config_pbtxt.CONFIG_NAME not in artifact.files
    ):
        return ()
    what = "MLflow's pyfunc" if flavor == "pyfunc" else f"flavor {flavor}"
    said = (
        f"the {config_pbtxt.CONFIG_NAME} beside the model is not used, as {what} gets one that fits"
        " it: option config changes that"
    )
    return (said,)


def _example(artifact: Artifact) -> tuple[JsonObject | None, str | None]:
    """The document that MLflow keeps of an input example, the one for servers first; or why none
    that is there can be read. Whether a request can be made of it depends on the model's tensors.
    """
    why = None
    for name in ("serving_input_example.json", "input_example.json"):
        if name not in artifact.files:
            continue
        size = artifact.files[name]
        if size is None or size > _LARGEST_EXAMPLE:
            known = "an unknown number of" if size is None else size
            why = why or f"{name} has {known} bytes, and {_LARGEST_EXAMPLE} are read at most"
            continue
        try:
            data = json.loads(artifact.read(name))
        except (ValueError, RecursionError):
            why = why or f"{name} is not JSON"
            continue
        data = {"inputs": data} if isinstance(data, list) else data
        if isinstance(data, dict) and data and _depth(data) <= _DEEPEST_EXAMPLE:
            return data, None
        why = why or f"{name} holds no tensors and no table"
    return None, why


def _depth(data: object) -> int:
    """How deep lists and mappings lie in each other."""
    level, depth = [data], 0
    while level and depth <= _DEEPEST_EXAMPLE:
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        depth += 1
    return depth


def _flavor(artifact: Artifact) -> str:
    names = list((artifact.mlmodel or {}).get("flavors", {}))
    for known in _MAKERS:
        if known in names:
            return known
    # Files inside a model of another flavor are parts of it: what answers is the code around them.
    # A configuration beside MLmodel, though, was put there for Triton.
    if names and config_pbtxt.CONFIG_NAME not in artifact.files:
        raise why_not(names)
    if _model_folders(artifact):
        return "triton"
    if any(path.endswith(".onnx") for path in artifact.files):
        return "onnx"
    raise ArtifactError(
        "the artifact holds no model: neither a folder in Triton's layout nor an .onnx file",
        step="find the model",
    )


def _model_folders(artifact: Artifact) -> list[str]:
    """Folders ("" is the root) which hold config.pbtxt or a numbered folder."""
    found = set()
    for path in [*artifact.files, *(f"{folder}/." for folder in artifact.folders)]:
        parts = path.split("/")
        for depth in (0, 1):
            here = parts[depth:]
            if (
                len(here) == 1
                and here[0] == config_pbtxt.CONFIG_NAME
                or len(here) > 1
                and is_version(here[0])
            ):
                found.add("/".join(parts[:depth]))
                break
    return [""] if "" in found else sorted(found)


def is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and name[0] != "0" and int(name) < _VERSION_LIMIT


def _triton(artifact: Artifact, numbering: Numbering) -> Layout:
    data = _data_folder(artifact)
    prefix = f"{data}/" if data else ""
    inside = _files_below(artifact, data)
    folders = {
        folder[len(prefix) :]
        for folder in artifact.folders
        if folder.startswith(prefix) and folder != data
    }
    given = config_pbtxt.CONFIG_NAME in inside
    config = artifact.read(prefix + config_pbtxt.CONFIG_NAME) if given else b""
    message = config_pbtxt.parse(config)
    present = _version_folders(inside, folders)
    if not present:
        if not config_pbtxt.is_ensemble(message):
            raise ArtifactError(
                "the artifact holds no version folder (a folder named 1, 2, … with the model's"
                " files)",
                step="find the model",
            )
        present, folders = [1], folders | {"1"}
    renamed = _numbers(present, message, numbering)
    return Layout(
        "triton",
        tuple(
            (prefix + p, _rename_version(p, renamed), size)
            for p, size in sorted(inside.items())
            if p not in (config_pbtxt.CONFIG_NAME, SIGNATURE_NAME)
        ),
        tuple(sorted(_rename_version(folder, renamed) for folder in folders)),
        config,
        tuple(renamed.values()),
        tuple(renamed),
        warnings=_warn_of_left_out(artifact, data),
    )


def _files_below(artifact: Artifact, data: str) -> dict[str, int | None]:
    """Path → size of the model folder's files; what MLflow lays beside a model is none of them."""
    if data:
        prefix = f"{data}/"
        return {
            path[len(prefix) :]: size
            for path, size in artifact.files.items()
            if path.startswith(prefix)
        }
    return {
        path: size
        for path, size in artifact.files.items()
        if path not in MLFLOW_FILES and not path.startswith(EXAMPLES)
    }


def _version_folders(files: Iterable[str], folders: Iterable[str]) -> list[int]:
    """The numbers of the version folders that some file or folder lies in, lowest first."""
    heads = {path.split("/")[0] for path in [*(p for p in files if "/" in p), *folders]}
    return sorted(int(head) for head in heads if is_version(head))


def _data_folder(artifact: Artifact) -> str:
    entry = ((artifact.mlmodel or {}).get("flavors", {}).get("triton") or {}).get("data")
    found = _model_folders(artifact)
    if entry:
        named = posixpath.normpath(str(entry))
        if any(path.startswith(f"{named}/") for path in artifact.files):
            return named
        raise ArtifactError(
            f"MLmodel says that the model is in '{named}', and the artifact has no such folder",
            step="find the model",
        )
    if not found:
        raise ArtifactError(
            "the artifact holds no model in Triton's layout (config.pbtxt and numbered version"
            " folders)",
            step="find the model",
        )
    if len(found) > 1:
        raise ArtifactError(
            f"the artifact holds {len(found)} models ({listed(found)}): publish them one by one",
            step="find the model",
        )
    return found[0]


def _warn_of_left_out(artifact: Artifact, data: str) -> tuple[str, ...]:
    if not data:
        return ()
    beside = (
        {path.split("/")[0] for path in artifact.files if "/" in path} - {data} - MLFLOW_FOLDERS
    )
    return tuple(
        f"the folder '{folder}' next to the model folder '{data}' in the artifact was left out"
        for folder in sorted(beside)
    )


def _numbers(present: Sequence[int], message: ModelConfig, numbering: Numbering) -> dict[int, int]:
    """Artifact version → Triton version."""
    keep = (
        numbering.mode == "artifact"
        or numbering.registry_version is None
        or numbering.mode == "auto"
        and (
            len(present) > 1
            or config_pbtxt.specific_versions(message)
            or config_pbtxt.names_a_version_folder(message)
            or numbering.pinned
        )
    )
    if keep:
        return {version: version for version in present}
    if len(present) > 1:
        raise ArtifactError(
            "version_folders: registry needs one version folder, and the artifact has"
            f" {listed(map(str, present))}",
            step="number the versions",
        )
    return {present[0]: int(numbering.registry_version or 1)}


def _rename_version(path: str, renamed: Mapping[int, int]) -> str:
    head, slash, rest = path.partition("/")
    return f"{renamed.get(int(head), head)}{slash}{rest}" if is_version(head) else path


_MAKERS: dict[str, Callable[[Artifact, Numbering], Layout]] = {"triton": _triton, **MLFLOW_MAKERS}
