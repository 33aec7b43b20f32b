# SPDX-License-Identifier: Apache-2.0
"""What may be deployed, as options say: refused before anything is downloaded, in check mode too.
Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from ..domain import config_pbtxt
from ..domain.allowed import Rules, why_not_allowed
from ..domain.backends import backends_of
from ..domain.config_paths import warn_of_paths
from ..domain.config_pbtxt import ModelConfig
from ..domain.layout import Layout
from ..domain.manifest import DIGEST_TAG, Manifest
from ..domain.provenance import SIGNATURE_NAME, Provenance, RequiredSignature, Signer
from ..domain.published import PUBLISHED_SCHEMA
from ..domain.record import Record
from ..domain.signers import Anchors
from ..domain.vllm_settings import settings_in, why_not_set
from ..errors import PolicyRefused
from ..outside import Options
from .policy_options import bytes_of, code_rule, digests, folders, required_signature, texts

_PYTHON = "python"


@dataclass(frozen=True)
class Policy:
    """Rules for every model of a run; None and False: no rule.

    Attributes:
        allowed_backends: names of Triton's backends, ``ensemble`` among them.
        max_size: bytes that a model's files may have.
        require_digest: only models of which the publisher's manifest is known.
        allowed_paths: folders into which a configuration may point, beside the model's own.
        model_code: ``refused``: only models that are data.
        require_signature: only models that one of these signed.
        revoked_digests: of manifests or files, in hex.
        revoked_keys: of signers and authorities, as ``Signer`` has them.
    """

    allowed_backends: tuple[str, ...] | None = None
    max_size: int | None = None
    require_digest: bool = False
    allowed_paths: tuple[str, ...] | None = None
    model_code: str = "allowed"
    require_signature: RequiredSignature | None = None
    revoked_digests: tuple[str, ...] = ()
    revoked_keys: tuple[str, ...] = ()
    anchors: Anchors | None = None
    """What ``require_signature`` names, once it was read; without it nobody is trusted."""

    @classmethod
    def from_options(cls, options: Options) -> Policy:
        """Raises InvalidOption for a value that an option cannot have."""
        size = options.get("max_size")
        return cls(
            texts("allowed_backends", options.get("allowed_backends"), "names"),
            bytes_of(size) if size is not None else None,
            bool(options.get("require_digest")),
            folders("allowed_paths", options.get("allowed_paths")),
            code_rule(options.get("model_code")),
            required_signature(options.get("require_signature")),
            digests("revoked_digests", options.get("revoked_digests")),
            digests("revoked_keys", options.get("revoked_keys")),
        )

    def __bool__(self) -> bool:
        return self != Policy()

    def check_new(self, layout: Layout, config: bytes, tags: Mapping[str, str]) -> None:
        """Judge what is to be brought here.

        Args:
            config: of the model as it is to be deployed.
            tags: of the model version; none where no version is registered.

        Raises:
            PolicyRefused: naming the rule.
        """
        self._check_pyfunc(layout)
        self._check_parts(config, layout.paths, layout.folders)
        untold = [source for source, _target, size in layout.files if size is None]
        if self.max_size is not None and untold:
            raise _refuse(
                f"the store does not list the size of {untold[0]}, and max_size allows"
                f" {self.max_size} bytes"
            )
        self._check_size(layout.size)
        if self.require_digest:
            _check_digest(layout.provenance, tags.get(DIGEST_TAG))
        self._check_signature(layout)
        self._check_revoked(
            layout.provenance.signed_by if layout.provenance else None,
            layout.said_keys,
            digests_of(layout.provenance) if layout.provenance else {},
        )

    def check_deployed(self, record: Record, config: bytes) -> None:
        """The same of a deployment whose files stay, or come back from a retained copy."""
        entries = record.manifest["files"]
        self._check_parts(
            config,
            [entry["path"] for entry in entries],
            Manifest.from_dict(record.manifest).folders,
        )
        self._check_size(sum(entry["size"] for entry in entries))
        self.check_trust(record)

    @property
    def judges_trust(self) -> bool:
        """Whether any rule asks who vouches for a model."""
        return bool(
            self.require_digest
            or self.require_signature
            or self.revoked_digests
            or self.revoked_keys
        )

    def check_trust(self, record: Record) -> None:
        """What of a deployment can cease to be trusted: who vouched for it, and its digests.

        Raises:
            PolicyRefused: naming the rule.
        """
        for version in record.triton_versions:
            try:
                self._check_vouched(record.with_version(version))
            except PolicyRefused as error:
                if str(version) in record.beside:
                    error.message = _of_version(version, error.message)
                raise

    def _check_vouched(self, record: Record) -> None:
        if self.require_digest:
            _check_recorded_digest(record)
        signer = Signer.from_dict(record.signed_by) if record.signed_by else None
        if self.require_signature:
            if signer is None:
                raise _refuse(
                    "it was deployed without a signature, and require_signature is set: publish it"
                    " with mlflow_publish and sign, and deploy that version"
                )
            self._check_signer(signer)
        entries = {entry["sha256"]: entry["path"] for entry in record.manifest["files"]}
        manifests = {
            digest: "its manifest"
            for digest in (record.publisher_digest, record.manifest_digest)
            if digest
        }
        origins = dict.fromkeys(record.origins, "a file that it was made of")
        self._check_revoked(signer, record.said_keys, {**origins, **entries, **manifests})

    def _check_signature(self, layout: Layout) -> None:
        if not self.require_signature:
            return
        found = layout.provenance
        if found is None or found.signed_by is None:
            raise _refuse(
                f"it has no signature ({SIGNATURE_NAME}), and require_signature is set: publish it"
                " with mlflow_publish and sign, and deploy that version"
            )
        self._check_signer(found.signed_by)
        if found.signed_folder and layout.flavor != "triton":
            raise _refuse(
                f"its signature covers the folder {found.signed_folder} alone, which is enough for"
                f" flavor triton and not for {layout.flavor}: sign the whole artifact"
            )
        unsigned = [source for source, _to, _size in layout.files if source not in found.signed]
        if unsigned:
            raise _refuse(
                f"{SIGNATURE_NAME} does not cover {unsigned[0]}, and require_signature is set: sign"
                " the model again, as it is now"
            )

    def _check_signer(self, signer: Signer) -> None:
        if why := (self.anchors or Anchors()).why_not(signer):
            raise _refuse(
                f"it was signed by {signer}, who {why}: sign it with a key that is listed and"
                " publish it, or list the signer where you trust it"
            )

    def _check_revoked(
        self, signer: Signer | None, said: Collection[str], digests: Mapping[str, str]
    ) -> None:
        """``digests``: sha256 to what has it."""
        for key in sorted(set(said) & set(self.revoked_keys)):
            raise _refuse(
                f"{SIGNATURE_NAME} says that it is by {key}, which revoked_keys has: sign the model"
                " with another key and publish it"
            )
        keys = sorted(signer.ids & set(self.revoked_keys)) if signer else []
        if keys:
            raise _refuse(
                f"it was signed by {signer}, and revoked_keys has {keys[0]}: sign it with another"
                " key and publish it"
            )
        for digest in sorted(set(digests) & set(self.revoked_digests)):
            raise _refuse(
                f"revoked_digests has {digest}, which is {digests[digest]}: deploy another version"
            )

    def check_staying(
        self,
        record: Record,
        config: bytes,
        versions: Iterable[int],
        check_settings: Callable[[Record, bytes], None],
    ) -> None:
        """The same of versions that stay beside a new one.

        Args:
            check_settings: judges the files of a deployment that are configurations of their own.
        """
        for version in versions:
            try:
                self.check_deployed(record.with_version(version), config)
                check_settings(record.with_version(version), config)
            except PolicyRefused as error:
                error.message = _of_version(version, error.message)
                raise

    def check_settings(
        self, config: bytes, paths: Collection[str], read: Callable[[str], bytes | None]
    ) -> None:
        """Judge files that are configurations of their own, as vLLM has them.

        Args:
            paths: files of the model folder.
            read: gives one of these; None where it cannot be read.

        Raises:
            PolicyRefused: naming the rule.
        """
        if not self.rules:
            return
        for path in settings_in(config_pbtxt.parse(config), paths):
            if reason := why_not_set(self.rules, path, read(path) or b""):
                raise _refuse(reason)

    @property
    def runs_code(self) -> bool:
        """Whether programs of the registry may run, as MLflow's pyfunc does it."""
        backends = self.allowed_backends
        return self.model_code == "allowed" and (backends is None or _PYTHON in backends)

    @property
    def rules(self) -> Rules:
        """Of what a model may be made of."""
        return Rules(self.allowed_backends, self.allowed_paths, self.model_code == "allowed")

    def warn_of(self, config: ModelConfig) -> tuple[str, ...]:
        """Sentences on what rules would refuse, where there are none: paths that lead out of a
        model's folder.
        """
        backend = next(iter(backends_of(config, ())), "")
        return () if self.rules else warn_of_paths(config, backend)

    def _check_parts(self, config: bytes, paths: Iterable[str], folders: Collection[str]) -> None:
        if not self.rules:
            return
        message = config_pbtxt.parse(config)
        if reason := why_not_allowed(self.rules, message, [*paths], folders):
            raise _refuse(reason)

    def _check_pyfunc(self, layout: Layout) -> None:
        """What MLflow's own code answers for is code, whatever it is made of."""
        if layout.pyfunc is None or self.runs_code:
            return
        backends = self.allowed_backends
        said, ways = [], []
        if self.model_code != "allowed":
            said.append("model_code: refused is set")
            ways.append("set model_code: allowed")
        if backends is not None and _PYTHON not in backends:
            said.append(f"allowed_backends has {', '.join(backends) or 'none'}")
            ways.append("add python to allowed_backends")
        raise _refuse(
            f"MLflow's own code would answer for it ({layout.why}), and {' and '.join(said)}:"
            f" {' and '.join(ways)}, or publish it as ONNX or another model that is data"
        )

    def _check_size(self, size: int) -> None:
        if self.max_size is not None and size > self.max_size:
            raise _refuse(f"it has {size} bytes, and max_size allows {self.max_size}")


_AGAIN = (
    "publish it again with mlflow_publish (the same content becomes a version with a new manifest)"
    " and deploy that version"
)


def _of_version(version: int, message: str) -> str:
    return (
        f"of version {version}, which stays beside it: {message}; serve_versions: 1 leaves that"
        " version out"
    )


def digests_of(found: Provenance) -> dict[str, str]:
    """sha256 of what an artifact is made of → what has it."""
    files = {claim.sha256: path for path, claim in found.claims.items()}
    return {**files, **({found.digest: "its manifest"} if found.digest else {})}


def _check_digest(found: Provenance | None, tagged: str | None) -> None:
    """A manifest that covers everything, and for which the registry vouches.

    Args:
        tagged: the digest that the version's tag has.
    """
    if found is None or found.digest is None:
        raise _refuse(
            "it has no manifest of its publisher, and require_digest is set: publish it with"
            " mlflow_publish and deploy that version"
        )
    if found.schema != PUBLISHED_SCHEMA:
        raise _refuse(
            f"its manifest has schema {found.schema}, which does not cover all of its files, and"
            f" require_digest is set: {_AGAIN}"
        )
    if tagged is None:
        raise _refuse(
            f"no tag {DIGEST_TAG} of a model version vouches for its manifest, and require_digest"
            " is set: name the version that mlflow_publish made, as models:/<name>/<version>"
        )
    if tagged != found.digest:
        raise _refuse(
            f"the tag {DIGEST_TAG} of the model version names another manifest ({tagged}), and"
            f" require_digest is set: {_AGAIN}"
        )


def _check_recorded_digest(record: Record) -> None:
    if record.publisher_digest is None:
        raise _refuse(
            "it was deployed without a manifest of its publisher, and require_digest is set:"
            " publish it with mlflow_publish and deploy that version"
        )
    if record.publisher_schema != PUBLISHED_SCHEMA:
        raise _refuse(
            "it was deployed with a manifest that does not cover all of its files, and"
            f" require_digest is set: {_AGAIN}"
        )
    if record.tagged_digest != record.publisher_digest:
        raise _refuse(
            f"no tag {DIGEST_TAG} of a model version vouched for its manifest when it was deployed,"
            " and require_digest is set: deploy the version that mlflow_publish made, as"
            f" models:/<name>/<version>; where it is that, {_AGAIN}"
        )


def _refuse(message: str) -> PolicyRefused:
    return PolicyRefused(message, step="check the policy", left="nothing was changed")
