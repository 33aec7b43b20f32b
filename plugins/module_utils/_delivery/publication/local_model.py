# SPDX-License-Identifier: Apache-2.0
"""What is uploaded for a local model: Triton's layout in one folder, MLmodel and the manifest
beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..artifacts.roots import LocalRoot
from ..disk import hash_stream
from ..domain import config_pbtxt
from ..domain.backends import FIL_FILES, FILES, backends_of
from ..domain.config_pbtxt import ModelConfig
from ..domain.layout import Artifact, Numbering
from ..domain.manifest import MANIFEST_NAME, FileEntry, Manifest
from ..domain.pbtxt import in_utf8
from ..domain.provenance import SIGNATURE_NAME
from ..domain.published import PublishedManifest, read_published
from ..domain.servable import refuse_unservable
from ..errors import ArtifactError, InvalidOption, NotFound
from ..flavors.layouts import is_version, layout_of
from ..formats import mlmodel
from ..formats.model_file import (
    STEP,
    kind_of,
    refuse_what_is_no_file,
    why_no_plan,
)
from ..formats.onnx import content_of_onnx, refuse_what_triton_cannot_carry
from ..formats.tensorrt import VERSION_TAG, is_plan, version_of_plan
from ..outside import JsonObject
from ..readers.questions import (
    read_model_file,
    read_onnx,
    refuse_other_answers,
    why_no_torchscript,
)
from ..trust.signing import SigningKey, make_signature
from .comparison import COMPARED_TAG, compare
from .upload import UploadSource

_WHY_NO_MODEL = {"pytorch": why_no_torchscript, "tensorrt": why_no_plan}
_MAIN_FILE = {backend: name for name, backend in FILES.items()}


@dataclass(frozen=True)
class LocalModel:
    """A model of this host in the form in which it is published.

    Attributes:
        folder: name of the folder beside MLmodel.
        manifest: what that folder holds, byte for byte.
        content: sha256 of what the model is: names that a framework drew at random do not count.
        pieces: path in the folder → where its bytes are.
        config: config.pbtxt, parsed.
        backend: name of Triton's backend, as far as can be told.
        example: input tensor → nested lists.
        tags: of a new version, as far as the files tell; those that were asked for go before them.
        warning: what could not be found out about it.
        key: with what it is signed.
    """

    folder: str
    manifest: Manifest
    content: str
    pieces: Mapping[str, UploadSource]
    config: ModelConfig
    backend: str
    example: JsonObject | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    warning: str | None = None
    key: SigningKey | None = None

    @property
    def description(self) -> mlmodel.Description:
        return mlmodel.Description(
            self.folder, self.backend, self.config, self.manifest, self.content, self.example
        )

    def uploads(
        self, mlflow_version: str, model_id: str | None, run_id: str | None
    ) -> tuple[dict[str, UploadSource], PublishedManifest]:
        """Artifact path → bytes, MLmodel last: an artifact without it is recognised as unfinished.
        And the manifest that covers all of them but itself and the signature, which covers it too.

        Raises:
            ArtifactError: more files than a manifest may list, or names that none may have.
        """
        files = {f"{self.folder}/{path}": piece for path, piece in self.pieces.items()}
        known = {f"{self.folder}/{entry.path}": entry.sha256 for entry in self.manifest.files}
        if self.example:
            files.update(
                {
                    path: UploadSource.of(data)
                    for path, data in mlmodel.example_files(self.example).items()
                }
            )
        described = UploadSource.of(
            mlmodel.render(self.description, mlflow_version, model_id, run_id)
        )
        manifest = PublishedManifest.of(
            (
                FileEntry(path, piece.size, known.get(path) or _digest(piece))
                for path, piece in {**files, "MLmodel": described}.items()
            ),
            (f"{self.folder}/{folder}" for folder in self.manifest.folders),
        )
        text = manifest.to_bytes()
        read_published(text)  # as every delivery will
        files[MANIFEST_NAME] = UploadSource.of(text)
        if self.key:
            digests = {entry.path: str(entry.sha256) for entry in manifest.files}
            digests[MANIFEST_NAME] = hashlib.sha256(text).hexdigest()
            files[SIGNATURE_NAME] = UploadSource.of(make_signature(self.key, self.folder, digests))
        files["MLmodel"] = described
        return files, manifest


def read_local_model(
    path: str,
    name: str,
    root: str | None = None,
    overlay: Mapping[str, object] | None = None,
    example: Mapping[str, object] | None = None,
) -> LocalModel:
    """Read a folder in Triton's layout, or one file.

    Args:
        name: the registered model; the folder of a bare file is named after it.
        root: symbolic links may lead anywhere below; by default the folder above the one that holds
            the model.
        overlay: fields of the configuration that replace those of the model.
        example: an input example to publish with it.

    Raises:
        NotFound: nothing is there.
        InvalidOption, ArtifactError, ConfigError: what is there is no model that Triton could
            serve.
    """
    location = os.path.abspath(os.path.expanduser(path))
    if not os.path.exists(location):
        raise NotFound(f"{location} does not exist on this host", step=STEP)
    if os.path.isdir(location):
        folder, found = (
            os.path.basename(location),
            _read_folder(location, root or _two_above(location), overlay),
        )
    else:
        folder, found = name, _read_file(location, root or os.path.dirname(location), overlay)
    config, pieces, folders = found
    manifest = Manifest.of(
        [
            FileEntry(path, piece.size, piece.sha256 or _digest(piece))
            for path, piece in pieces.items()
        ],
        folders,
    )
    _refuse_unservable(config, name, [*pieces, *folders])
    if example:
        mlmodel.check_example(example, config)
    backend = _backend(config, pieces)
    return LocalModel(
        folder,
        manifest,
        _content(manifest if os.path.isdir(location) else _nameless(manifest, config), pieces),
        pieces,
        config,
        backend,
        example,
        _own_tags(config, pieces),
    )


def compared(model: LocalModel, path: str) -> LocalModel:
    """The same with what a comparison with the library that trained it says, see ``comparison``.

    Args:
        path: what it was read from.

    Raises:
        OtherAnswers: a server would answer other numbers.
    """
    if not model.example or model.backend != "fil":
        return model
    parameters = model.config.parameters
    model_type = parameters["model_type"].string_value if "model_type" in parameters else ""
    name = model.config.default_model_filename or FIL_FILES.get(model_type or "xgboost")
    files = {}
    for place, piece in model.pieces.items():
        version, _slash, file = place.partition("/")
        if is_version(version) and file == name:
            files[int(version)] = piece
    if not files:
        return model
    served = files[max(files)]
    location = os.path.abspath(os.path.expanduser(path))
    original = location if os.path.isfile(location) else served.file
    if not original:
        return model
    found = compare(model_type or "xgboost", original, served, model.example)
    tags = {COMPARED_TAG: found.said} if found.said else {}
    return replace(model, tags={**model.tags, **tags}, warning=found.warning)


Found = tuple[ModelConfig, dict[str, UploadSource], tuple[str, ...]]
"""The configuration, path → bytes, and folders without a file."""


def _refuse_unservable(config: ModelConfig, name: str, paths: Sequence[str]) -> None:
    """Raises ConfigError or ArtifactError for what no server could load."""
    heads = {path.partition("/")[0] for path in paths}
    versions = [int(head) for head in heads if is_version(head)]
    refuse_unservable(config, name, versions or [1], paths)


def _two_above(location: str) -> str:
    parent = os.path.dirname(location)
    above = os.path.dirname(parent)
    # The root of the file system would allow a link to any file of the host.
    return parent if above == os.path.sep else above


def _read_folder(location: str, root: str, overlay: Mapping[str, object] | None) -> Found:
    local = LocalRoot(location, timeout=60, inside=root)
    pieces = {file.path: _upload_source(local, file.path) for file in local.list()}
    if not pieces:
        raise ArtifactError(f"the folder {location} is empty", step=STEP)
    folder = os.path.basename(location)
    artifact = Artifact(
        {f"{folder}/{path}": piece.size for path, piece in pieces.items()},
        tuple(f"{folder}/{path}" for path in local.folders()),
        {"flavors": {"triton": {"data": folder}}},
        None,
        lambda path: local.read(path.removeprefix(f"{folder}/")),
    )
    try:
        given = layout_of(artifact, "triton", Numbering("artifact", None, False)).author_config
        author = config_pbtxt.parse(given)
    except ArtifactError as error:
        error.message = error.message.replace(
            "the artifact", f"the folder {location}"
        ) + _publish_instead(location, pieces)
        raise
    config = config_pbtxt.apply_overlay(author, overlay) if overlay else author
    if config != author:
        pieces[config_pbtxt.CONFIG_NAME] = UploadSource.of(config_pbtxt.render(config))
    elif in_utf8(given) != given:
        pieces[config_pbtxt.CONFIG_NAME] = UploadSource.of(in_utf8(given))
    _check_model_files(config, pieces)
    return config, pieces, local.folders()


def _publish_instead(location: str, paths: Iterable[str]) -> str:
    files = sorted(path for path in paths if "/" not in path and kind_of(path))
    return (
        f"; to publish a file by itself, name {os.path.join(location, files[0])}" if files else ""
    )


def _read_file(location: str, root: str, overlay: Mapping[str, object] | None) -> Found:
    local = LocalRoot(os.path.dirname(location), timeout=60, inside=root)
    own = _upload_source(local, os.path.basename(location))
    found = read_model_file(location)
    config = config_pbtxt.apply_overlay(found.config, overlay) if overlay else found.config
    if found.missing and not (config.input and config.output):
        raise InvalidOption(found.missing, step=STEP)
    if found.instead is not None:
        own = UploadSource.of(found.instead)
    pieces = {f"1/{config.default_model_filename or found.target}": own}
    for path in found.external:
        try:
            pieces[f"1/{path}"] = _upload_source(local, path)
        except (ArtifactError, FileNotFoundError) as error:
            reason = (
                f"cannot be read ({error})"
                if isinstance(error, ArtifactError)
                else "is not beside it: the two files move together"
            )
            raise ArtifactError(
                f"{location} keeps weights in '{path}', which {reason}", step=STEP
            ) from error
    pieces[config_pbtxt.CONFIG_NAME] = UploadSource.of(config_pbtxt.render(config))
    return config, pieces, ()


def _upload_source(local: LocalRoot, path: str) -> UploadSource:
    with local.open(path) as opened:
        refuse_what_is_no_file(local.real_path(path), path)
        size = os.fstat(opened.fileno()).st_size
        return UploadSource(size, local.real_path(path), hash_stream(opened))


def _digest(piece: UploadSource) -> str:
    return hashlib.sha256(piece.data).hexdigest()


def _check_model_files(config: ModelConfig, pieces: Mapping[str, UploadSource]) -> None:
    """Look into the files of a folder as into a bare one, where their format is known: Triton would
    say so much later.
    """
    backend = _backend(config, pieces)
    model_type = (
        config.parameters["model_type"].string_value or "xgboost"
        if "model_type" in config.parameters
        else "xgboost"
    )
    usual = FIL_FILES.get(model_type) if backend == "fil" else _MAIN_FILE.get(backend)
    for path, piece in pieces.items():
        if (
            not piece.file
            or path.count("/") != 1
            or path.split("/")[1] != (config.default_model_filename or usual)
        ):
            continue
        if not piece.size:
            raise ArtifactError(f"{path} is empty", step=STEP)
        if backend == "onnxruntime":
            refuse_what_triton_cannot_carry(read_onnx(piece.file), path)
        elif (why_no_model := _WHY_NO_MODEL.get(backend)) and (reason := why_no_model(piece.file)):
            raise ArtifactError(f"{path} {reason}", step=STEP)
        elif backend == "fil":
            refuse_other_answers(piece.file, model_type)


def _own_tags(config: ModelConfig, pieces: Mapping[str, UploadSource]) -> dict[str, str]:
    """Tags that the files themselves tell. Version folders with plans of different age tell
    none.
    """
    if not is_plan(config):
        return {}
    wanted = config.default_model_filename or _MAIN_FILE["tensorrt"]
    found = {
        version_of_plan(piece.file)
        for path, piece in pieces.items()
        if piece.file and posixpath.basename(path) == wanted
    }
    version = found.pop() if len(found) == 1 else None
    return {VERSION_TAG: version} if version else {}


def _nameless(manifest: Manifest, config: ModelConfig) -> Manifest:
    """The manifest of a bare file as releases made it that did not write down its columns: the file
    has them, and what is published already is the same model.
    """
    plain = type(config)()
    plain.CopyFrom(config)
    plain.parameters.pop(config_pbtxt.COLUMNS_KEY, None)
    data = config_pbtxt.render(plain)
    entries = {entry.path: entry for entry in manifest.files}
    name = config_pbtxt.CONFIG_NAME
    entries[name] = FileEntry(name, len(data), hashlib.sha256(data).hexdigest())
    return Manifest.of(entries.values(), manifest.folders)


def _content(manifest: Manifest, pieces: Mapping[str, UploadSource]) -> str:
    """What the model is: an ONNX file's external data counts by its bytes, whatever the framework
    named it.
    """
    entries = {entry.path: str(entry.sha256) for entry in manifest.files}
    for path in [path for path in entries if path.endswith(".onnx") and pieces[path].file]:
        base = posixpath.dirname(path)
        try:
            external = {
                name: entries.get(posixpath.join(base, name))
                for name in read_onnx(str(pieces[path].file)).external
            }
        except ArtifactError:
            continue  # no model, only a file of that name
        known = {name: digest for name, digest in external.items() if digest}
        if known and len(known) == len(external):
            entries[path] = content_of_onnx(str(pieces[path].file), known)
            for name, digest in known.items():
                entries.pop(posixpath.join(base, name), None)
                entries[f"{base}/ {digest}"] = digest
    return hashlib.sha256(
        json.dumps([sorted(entries.items()), sorted(manifest.folders)]).encode()
    ).hexdigest()


def _backend(config: ModelConfig, paths: Mapping[str, object]) -> str:
    return next(iter(backends_of(config, paths)), "")
