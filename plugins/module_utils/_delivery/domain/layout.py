# SPDX-License-Identifier: Apache-2.0
"""What lies in an artifact, and the model folder that is to be made of it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import ArtifactError
from ..outside import JsonDict, JsonObject
from .backends import FIL_FILES
from .config_pbtxt import CONFIG_NAME
from .manifest import MANIFEST_NAME
from .provenance import SIGNATURE_NAME, Provenance
from .pyfunc import PROGRAMS, SETTINGS_NAME, Interface
from .requirements import Requirements

STEP = "find the model"
# Written beside a model; registered_model_meta may be added by MLflow's client that downloads.
MLFLOW_FILES = frozenset(
    {
        "MLmodel",
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "registered_model_meta",
        MANIFEST_NAME,
        SIGNATURE_NAME,
    }
)
MLFLOW_FOLDERS = frozenset({"metadata", "code"})
_MADE_BESIDE = frozenset({"lightgbm", "sklearn"})
_TREES = _MADE_BESIDE.union(["xgboost"])
_OWN_FILES = 1 << 16
EXAMPLES = ("input_example", "serving_input")


@dataclass(frozen=True)
class Artifact:
    """What lies at an artifact root. ``files`` maps relative paths to sizes in bytes (None: the
    store does not say); ``read`` compares with what ``provenance`` claims. ``said_keys``: by which
    a signature says that it is, where nobody verified it. ``look``: some bytes of a file from an
    offset on, which nobody compares; None where the store gives no parts.
    """

    files: Mapping[str, int | None]
    folders: tuple[str, ...]
    mlmodel: JsonObject | None
    provenance: Provenance | None
    read: Callable[[str], bytes]
    said_keys: tuple[str, ...] = ()
    look: Callable[[str, int, int], bytes | None] = lambda _path, _start, _size: None


@dataclass(frozen=True)
class Layout:
    """A model folder to be made.

    Attributes:
        flavor: "triton" or one of MLflow's own.
        files: (artifact path, path in the model folder, size or None), config.pbtxt not among them.
        folders: folders of the model folder that hold no file.
        author_config: config.pbtxt as published; what Triton needs to complete one where there is
            none.
        versions: Triton versions; ``artifact_versions`` the folders which they are in the artifact.
        provenance: what the bytes of each artifact path must be, and who says so; None where
            nobody does.
        said_keys: by which a signature says that it is, where nobody verified it.
        judged: artifact path → sha256 of what a rule read of it, so that nothing else is brought.
        revoked: sha256 of what must not be deployed, for files of which nothing is known before
            they are here.
        origins: sha256 of what the model was made of, where that is not in it as it came; known
            when it is here.
        warnings: sentences on what was left out.
        conversion: what is made of the files when they are here; see ``flavors.conversion``.
        columns: the names of the columns that the model takes, as its signature has them; none
            where it does not.
        model_class: the class that answers for the model, as MLmodel names it; None where it does
            not.
        missing: what the artifact does not tell of inputs and outputs, as a sentence; None where it
            tells all.
        example: the model's MLflow input example: tensor name to nested lists, or MLflow's document
            as long as the tensors are not known; None where there is none, or no request can be
            made of it.
        why_no_example: why an example that is there could not be read, until that is told.
        code: what of it is code, in words, with the options laid over its configuration; None where
            it is data.
        served_as: "native", or "pyfunc" where MLflow's own code answers; ``why`` as a part of a
            sentence.
        has_pyfunc: MLflow's own code could answer for it, and may here.
        pyfunc: what it takes and answers then; None where it is native.
        joins_requests: rows of several requests may become one call of it.
        requirements: the packages that it needs then.
        environment: what is known of their environment, as a user is told, with the number of
            ``packages``; ``builds_environment`` where it is not there.
    """

    flavor: str
    files: tuple[tuple[str, str, int | None], ...]
    folders: tuple[str, ...]
    author_config: bytes
    versions: tuple[int, ...]
    artifact_versions: tuple[int, ...]
    provenance: Provenance | None = None
    said_keys: tuple[str, ...] = ()
    judged: Mapping[str, str] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    origins: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    example: JsonObject | None = None
    conversion: str | None = None
    columns: tuple[str, ...] = ()
    model_class: str | None = None
    missing: str | None = None
    why_no_example: str | None = None
    code: str | None = None
    served_as: str = "native"
    why: str | None = None
    has_pyfunc: bool = False
    pyfunc: Interface | None = None
    joins_requests: bool = False
    requirements: Requirements | None = None
    environment: str | None = None
    packages: int | None = None
    builds_environment: bool = False

    @property
    def serving(self) -> JsonDict:
        """What its record keeps of the way it is served."""
        if self.pyfunc is None:
            return {"why": self.why} if self.has_pyfunc else {}
        return {
            "why": self.why,
            "form": self.pyfunc.form,
            "form_reason": self.pyfunc.reason,
            "requirements": len(self.requirements.lines) if self.requirements else None,
            "packages": self.packages,
        }

    @property
    def is_configured_later(self) -> bool:
        """Its configuration is made of files that are not here yet."""
        return self.conversion is not None and self.pyfunc is None

    @property
    def size(self) -> int:
        """Bytes to fetch, as far as the store says."""
        return sum(size or 0 for _source, _target, size in self.files)

    @property
    def paths(self) -> tuple[str, ...]:
        """Of the model folder's files when it is made. Trees become a file of the FIL backend, one
        of whose names stands here for whichever it gets.
        """
        if self.conversion in _TREES:
            return tuple(
                f"{version}/{FIL_FILES['treelite_checkpoint']}" for version in self.versions
            )
        made = (*PROGRAMS, SETTINGS_NAME) if self.pyfunc else ()
        return (
            *(f"{version}/{name}" for version in self.versions for name in made),
            *(target for _source, target, _size in self.files),
        )

    @property
    def room(self) -> int:
        """Bytes that are taken while the model is made: where a file is converted, it lies beside
        what it becomes for a while.
        """
        converted = self.size if self.conversion in _MADE_BESIDE else 0
        return self.size + converted + len(self.author_config) + _OWN_FILES


@dataclass(frozen=True)
class Numbering:
    """How version folders are numbered: see ``version_folders`` in the model options."""

    mode: str
    registry_version: int | None
    pinned: bool

    def version(self) -> int:
        """The version folder of a source that has none of its own."""
        return self.registry_version if self.registry_version and self.mode != "artifact" else 1


@dataclass(frozen=True)
class Serving:
    """What decides which way a model is served.

    Attributes:
        serve_as: "native", "pyfunc" or "auto".
        native_now: the flavor whose file a backend serves now, under this model's name; None where
            there is none.
        no_pyfunc: why MLflow's own code may not answer here, as a part of a sentence; None where
            it may.
        has_tensors: the user's ``config`` names inputs and outputs.
        batch_requests: whether requests may be joined; None: where rows are known to be
            independent.
    """

    serve_as: str = "auto"
    native_now: str | None = None
    no_pyfunc: str | None = None
    has_tensors: bool = False
    batch_requests: bool | None = None


def named_file(
    artifact: Artifact, flavor: str, named: object, endings: tuple[str, ...], what: str
) -> str:
    """The one file which MLmodel names, or which has one of the endings.

    Raises:
        ArtifactError: there is none, or more than one.
    """
    if isinstance(named, str) and posixpath.normpath(named) in artifact.files:
        return posixpath.normpath(named)
    found = sorted(
        path
        for path in artifact.files
        if path.endswith(endings) and path not in MLFLOW_FILES and not path.startswith(EXAMPLES)
    )
    if not found:
        raise ArtifactError(f"the artifact holds no {what}, which flavor {flavor} needs", step=STEP)
    if len(found) > 1:
        raise ArtifactError(
            f"the artifact holds {len(found)} models ({listed(found)}): publish them one by one",
            step=STEP,
        )
    return found[0]


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)


META_NAME = "mlflow-meta.json"
OWN_FILES = (CONFIG_NAME, META_NAME)
