# SPDX-License-Identifier: Apache-2.0
"""What is written down about a deployment. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ArtifactError, InvalidOption, RecordRefused, RepositoryError
from ..names import check_model_name
from ..outside import JsonObject
from .cases import is_named
from .fields import Fields, WrongShape, read_json
from .manifest import Manifest, files_outside_versions, join, select_versions

SCHEMA = 1
_STEP, _NOTHING = "read the record", "nothing was changed"
_VOUCHED = (
    "publisher_digest",
    "publisher_schema",
    "tagged_digest",
    "signed_by",
    "said_keys",
    "origins",
    "environment",
)
RULES = 1
"""Of what is made of decision trees and what is refused of them; raised with each change after
which something deployed would be made otherwise, or refused."""


@dataclass(frozen=True)
class Record:
    """One deployment of one model. Written after the server has proven that it serves it.

    Attributes:
        name: folder and Triton name.
        deploy_id: the id in the deployed config.pbtxt.
        wanted: "loaded" or "unloaded"; the server's start wrapper loads the former.
        model_uri: as asked for; ``alias`` the alias in it; ``pinned_uri`` the exact thing it meant.
        source: what the registry says the version is made from; of a folder, with the sha256 of its
            files. ``source_fingerprint`` and ``source_samples`` tell in short that it is another.
        triton_versions: version folders.
        manifest: ``Manifest.to_dict()`` of the model folder without config.pbtxt and
            mlflow-meta.json.
        config_digest: sha256 of config.pbtxt without the deploy id.
        request: the options that shaped the files (config, instance_kind, version_folders, flavor,
            owner, group, mode, …).
        served_as: "native", or "pyfunc" where MLflow's own code answers.
        environment: digest of the Python environment in which it does; ``worker`` the version of
            what runs it there.
        serving: why it is served so, and what a user is told of it: why, form, form_reason,
            requirements, packages.
        fingerprint: how each file looked when a run had proven its bytes; see ``ProvenFiles``.
        author_config: config.pbtxt as the author published it, so that options can change without a
            download.
        depends_on: names of models that it calls, as its user says; those of an ensemble stand in
            its configuration.
        publisher_digest, publisher_schema: of the publisher's manifest, with which every file was
            compared; None where there was none. Records of former releases have no schema.
        signed_by: ``Signer.to_dict()`` of who signed it, where a rule asked for that.
        said_keys: by which a signature says that it is, where no rule asked for its proof.
        origins: sha256 of the files of the artifact that do not lie in the model folder as they
            came, such as those that were converted.
        beside: version → the fields above of a version that is served beside the newest one.
        tagged_digest: what the tag ``triton.digest`` of the registry version said then.
        verified: when an inference proved what was put in place; None where none did.
        proof: how many requests, GPUs and instances answered then, on all servers together; None
            for what cannot be told.
        replaced: deploy id and pinned URI of the deployment before.
        transaction: of the run that wrote it; an instance count changes in place and keeps the
            deploy id.
        rolled_back_from, went_back_to: deploy ids, after a rollback.
        rolled_back_at: of a retained copy, when a rollback left it.
        example: an input that MLflow holds for the model, tensor name to nested lists; MLflow's
            document where Triton completes the configuration.
        case: what its user said to verify with, as JSON, when that proved it; see ``verify``.
        served: URL of a server → ``answers`` and ``digest``, see ``ServedModel``, of the
            configuration that it answered when the load was proven.
        gpu_memory: URL of a server → UUID of a GPU → bytes that the deployment took there when it
            had been proven, as far as that was measured.
        code: what of it is code, in words; "" where it is data, None where the release that made
            the record did not say.
        rules: ``RULES`` of the release that made the files; 0 before it wrote them down.

    A deployment that was taken over without a reload has the deploy id "": nothing that the server
    serves carries one.
    """

    name: str
    deploy_id: str
    model_uri: str
    pinned_uri: str
    source: str
    flavor: str
    triton_versions: tuple[int, ...]
    manifest: Mapping[str, Any]
    manifest_digest: str
    config_digest: str
    request: Mapping[str, Any]
    deployed_at: str
    deployed_by: str
    served_as: str = "native"
    environment: str | None = None
    worker: str | None = None
    serving: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    author_config: str = ""
    wanted: str = "loaded"
    alias: str | None = None
    registry_name: str | None = None
    registry_version: int | None = None
    tracking_uri: str | None = None
    run_id: str | None = None
    model_id: str | None = None
    source_fingerprint: str | None = None
    source_samples: str | None = None
    deployment_set: str | None = None
    depends_on: tuple[str, ...] = ()
    publisher_digest: str | None = None
    publisher_schema: int | None = None
    tagged_digest: str | None = None
    signed_by: Mapping[str, Any] | None = None
    said_keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    verified: str | None = None
    proof: Mapping[str, Any] | None = None
    replaced: Mapping[str, Any] | None = None
    transaction: str | None = None
    rolled_back_from: str | None = None
    went_back_to: str | None = None
    rolled_back_at: str | None = None
    example: Mapping[str, Any] | None = None
    case: Mapping[str, Any] | None = None
    served: Mapping[str, Any] = field(default_factory=dict)
    gpu_memory: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None
    rules: int = 0
    schema: int = SCHEMA

    @property
    def environments(self) -> frozenset[str]:
        """Digests of the environments that its versions need."""
        beside = (one.get("environment") for one in self.beside.values())
        return frozenset(one for one in (self.environment, *beside) if one)

    @property
    def key(self) -> str:
        """Names the folder of its retained copy. Not the deploy id, which what is changed in place
        keeps.
        """
        return self.transaction or self.deploy_id

    def with_version(self, version: int) -> Record:
        """What of this record is about one of its versions, and about all of them."""
        whole = Manifest.from_dict(self.manifest)
        part = join(
            Manifest.of(files_outside_versions(whole, self.triton_versions)),
            select_versions(whole, (version,)),
        )
        vouched = self.vouched_for([version])[str(version)]
        return dataclasses.replace(
            self, triton_versions=(version,), manifest=part.to_dict(), beside={}, **vouched
        )

    def vouched_for(self, versions: Iterable[int]) -> dict[str, dict[str, Any]]:
        """Who vouches for these versions, for the record of a newer one beside which they stay."""
        own = {name: getattr(self, name) for name in _VOUCHED}
        return {
            version: {**own, **self.beside.get(version, {})}
            for version in (str(one) for one in versions)
        }

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """Raises RecordRefused for a record that a newer version wrote, or that is damaged."""
        schema = data.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise RecordRefused(
                f"its record has schema {schema} and this version of the collection reads up to"
                f" {SCHEMA}: use the newer version that wrote it",
                step=_STEP,
                left=_NOTHING,
            )
        kinds = {f.name: str(f.type) for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {key: value for key, value in data.items() if key in kinds}
        for key in ("depends_on", "said_keys", "origins"):
            values[key] = values.get(key) or ()
        for key in ("served", "gpu_memory", "serving"):  # of no use otherwise, and in nobody's way
            if not isinstance(values.get(key), Mapping):
                values[key] = {}
        try:
            if "schema" not in values:
                raise KeyError("schema")
            for key, value in values.items():
                if not _fits(value, kinds[key]):
                    raise TypeError(f"{key} is not {kinds[key]}")
            tuples = {
                "triton_versions": tuple(values["triton_versions"]),
                "depends_on": tuple(values["depends_on"]),
                "said_keys": tuple(values["said_keys"]),
                "origins": tuple(values["origins"]),
            }
            return cls(**{**values, **tuples})
        except (KeyError, TypeError) as error:
            raise RecordRefused(
                f"its record is damaged ({error})", step=_STEP, left=_NOTHING
            ) from error


def read_record(body: bytes, name: str, path: str, copy: str | None = None) -> Record:
    """What a state has written down of a model.

    Args:
        path: where, for sentences.
        copy: the retained copy that it belongs to.

    Raises:
        RecordRefused: it is newer or damaged; the sentence says what to do.
    """
    document = None
    try:
        document = Fields(read_json(body)).data
        record = Record.from_dict(document)
        check_shapes(record, name)
        return record
    except RecordRefused as error:
        error.message += f"; it is {path}" if _is_newer(document) else _way_out(path, copy)
        refused = error
    except (WrongShape, ArtifactError, OverflowError) as error:
        said = f"its record is damaged ({error}){_way_out(path, copy)}"
        refused = RecordRefused(said, step=_STEP, left=_NOTHING)
        refused.__cause__ = error
    refused.document = document
    raise refused.about(model=name)


def check_shapes(record: Record, name: str) -> None:
    """Raises WrongShape, ArtifactError or OverflowError for what nobody could work with."""
    Manifest.from_dict(record.manifest)
    if record.name != name:
        raise WrongShape(f"it is of {record.name!r}")
    for key in (record.deploy_id, record.transaction, record.went_back_to):
        if key and not is_part(key):  # names the folder of a retained copy
            raise WrongShape(f"it has the key {key!r}, which leads elsewhere")
    if record.wanted not in ("loaded", "unloaded"):
        raise WrongShape(f"wanted is {record.wanted!r}, neither loaded nor unloaded")
    if not record.triton_versions:
        raise WrongShape("triton_versions is empty")
    for path, look in record.fingerprint.items():
        if not isinstance(look, list) or len(look) < 2:
            raise WrongShape(f"fingerprint has no list for {path}")
    for version, beside in record.beside.items():
        fields = Fields(beside, f"beside.{version}: ")
        fields.texts("origins"), fields.texts("said_keys")
        for key in ("publisher_digest", "tagged_digest"):
            fields.text_or_none(key)
        fields.number_or_none("publisher_schema")
        if "environment" in fields.data:
            fields.text_or_none("environment")
        if fields.data.get("signed_by", fields) is fields:
            raise WrongShape(f"beside.{version} has no signed_by")
    for signed_by in (record.signed_by, *(one["signed_by"] for one in record.beside.values())):
        if signed_by is not None:
            signer = Fields(signed_by, "signed_by: ")
            signer.text("key"), signer.texts("identities"), signer.texts("chain")
    if record.case is not None and not is_named(record.case.get("inputs")):
        raise WrongShape("case has no inputs")
    if record.served_as not in ("native", "pyfunc"):
        raise WrongShape(f"served_as is {record.served_as!r}, neither native nor pyfunc")
    kinds: dict[str, type | tuple[type, ...]] = {
        "config": Mapping,
        "serve_versions": int,
        "batch_requests": bool,
        "predict_timeout": (int, float),
    }
    for key, value in record.request.items():
        if value is not None and not isinstance(value, kinds.get(key, str)):
            raise WrongShape(f"request.{key} is {value!r}")


def is_part(key: str) -> bool:
    """True of what can be the name of one folder, and nothing else."""
    try:
        return bool(key.encode()) and not {"/", "\0"} & {*key} and key not in (".", "..")
    except UnicodeEncodeError:
        return False


def _is_newer(document: JsonObject | None) -> bool:
    schema = document.get("schema") if document else None
    return isinstance(schema, int) and schema > SCHEMA


def _way_out(path: str, copy: str | None) -> str:
    if copy:
        return f": it is {path}; remove {copy}, and there is no going back to that deployment"
    return (
        f": put {path} back from a backup, or remove it; the model is somebody else's then, which"
        " adopt: true takes over or, with state: absent, removes"
    )


def _fits(value: object, kind: str) -> bool:
    """True where ``value`` can be what a field of this annotation holds."""
    kind, _bar, none = kind.partition(" | ")
    if value is None:
        return none == "None"
    if kind.startswith("tuple["):
        item = kind[len("tuple[") :].partition(",")[0]
        return isinstance(value, (list, tuple)) and all(_fits(one, item) for one in value)
    if isinstance(value, bool):
        return False
    return isinstance(value, {"str": str, "int": int}.get(kind, Mapping))


def read_wanted(data: object) -> tuple[str, bool]:
    """A record's model, and whether the server is to load it, whatever schema the record has: what
    a server needs at its start.

    Raises:
        RepositoryError: it does not say both.
    """
    try:
        fields = Fields(data)
        name, wanted = check_model_name(fields.text("name")), fields.text("wanted")
        if wanted not in ("loaded", "unloaded"):
            raise WrongShape(f"wanted is {wanted!r}, neither loaded nor unloaded")
        return name, wanted == "loaded"
    except (WrongShape, InvalidOption) as error:
        raise RepositoryError(
            f"the record cannot be understood ({error})",
            step="read the record",
            left="nothing was changed",
        ) from error
