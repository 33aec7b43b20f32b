# SPDX-License-Identifier: Apache-2.0
"""What lies in an artifact, as the model folder to be made of it: fit for the servers, and allowed
by the policy.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from ..artifacts.checked import checked, refuse_unclaimed
from ..artifacts.metadata import read_artifact
from ..artifacts.roots import ArtifactRoot
from ..domain import config_pbtxt
from ..domain.allowed import code_of
from ..domain.backends import completes
from ..domain.config_pbtxt import config_for
from ..domain.desired import DesiredModel
from ..domain.environments import Environments
from ..domain.layout import Artifact, Layout, Numbering, Serving
from ..domain.pbtxt import in_utf8
from ..domain.provenance import Signature
from ..domain.record import Record
from ..domain.requirements import FILES, read_requirements
from ..domain.servable import refuse_layout
from ..domain.signers import Anchors
from ..domain.source import Source
from ..domain.vllm_settings import LARGEST
from ..errors import ArtifactError, DeliveryError
from ..execution.verification import judge_case, judge_example
from ..flavors.layouts import layout_of
from ..formats import tensorrt
from ..planning.policy import Policy
from ..repository.protocol import Repository
from ..repository.s3.location import is_s3
from ..trust.bundle import keys_in


class ArtifactReader:
    """Reads the artifacts of one run.

    Args:
        tensorrt_target: what TensorRT plans are compared with; ``urls`` of the servers, which tell
            it of themselves where they are on this host.
        place: of the repository, as the user says it; ``environments`` of that host, None where
            they cannot be asked.
    """

    def __init__(
        self,
        repository: Repository | None,
        policy: Policy,
        tensorrt_target: Mapping[str, object] | None,
        urls: Sequence[str],
        *,
        place: str = "",
        environments: Callable[[], Environments | None] = lambda: None,
    ) -> None:
        self._repository = repository
        self._policy = policy
        self._tensorrt_target = tensorrt_target
        self._urls = urls
        self._place = place
        self._environments = environments
        self._tensorrt: tensorrt.TensorRtTarget | None = None
        self._pinned: frozenset[str] | None = None
        self._pinned_by_list: frozenset[str] = frozenset()

    def pin(self, names: Collection[str]) -> None:
        """Ensembles of the list ask for a certain version of these: they keep their folders."""
        self._pinned_by_list |= frozenset(names)

    def read(
        self,
        artifacts: ArtifactRoot,
        source: Source,
        desired: DesiredModel,
        record: Record | None = None,
    ) -> Layout:
        """The model folder to be made.

        Args:
            record: of what is deployed under this name.

        Raises:
            DeliveryError: there is no model in it, it does not fit, or the policy forbids it.
        """
        verify = self._verify if self._policy.require_signature else None
        artifact = read_artifact(artifacts, verify, keys_in)
        pinned = desired.name in self._pinned_by_list | self._pinned_in_repository()
        layout = layout_of(
            artifact,
            desired.flavor,
            Numbering(desired.version_folders, source.registry_version, pinned),
            self._serving(desired, record),
        )
        layout = replace(
            layout,
            author_config=in_utf8(layout.author_config),
            revoked=frozenset(self._policy.revoked_digests),
        )
        if layout.provenance:
            refuse_unclaimed(layout.provenance, [source for source, _to, _size in layout.files])
        if layout.missing and not {"input", "output"} <= {*(desired.config or {})}:
            raise ArtifactError(layout.missing, step="find the model")
        config = config_for(layout.author_config.decode(), desired.name, "-", desired.request)
        message = config_pbtxt.parse(config)
        layout = replace(
            layout,
            code=code_of(message, layout.paths),
            warnings=(*layout.warnings, *self._policy.warn_of(message)),
        )
        if self._policy:
            self._policy.check_new(layout, config, source.tags)
            layout = self._with_judged_settings(layout, config, artifacts)
        if layout.pyfunc:
            layout = self._with_environment(layout, artifact, artifacts)
        refuse_layout(config, desired.name, layout)
        judge_case(config, self._urls, desired, lambda: is_whole(layout, artifacts))
        return judge_example(self._compare(layout, source), config, self._urls, desired)

    def _serving(self, desired: DesiredModel, record: Record | None) -> Serving:
        is_native = record is not None and record.served_as == "native"
        return Serving(
            desired.serve_as,
            record.flavor if record and is_native else None,
            self._why_no_pyfunc(),
            {"input", "output"} <= {*(desired.config or {})},
            desired.batch_requests,
        )

    def _why_no_pyfunc(self) -> str | None:
        if not self._policy.runs_code:
            return "the rules let no code of the registry run"
        return "the repository is in S3, which has no environments" if is_s3(self._place) else None

    def _with_environment(
        self, layout: Layout, artifact: Artifact, artifacts: ArtifactRoot
    ) -> Layout:
        """With what the model needs, as its publisher wrote it down, and what there is of it."""
        if is_s3(self._place):
            raise ArtifactError(
                f"MLflow's own code would answer for it ({layout.why}), and its environment lies"
                " on the host of the server, which a repository in S3 says nothing of: make"
                " model_repository a folder, or publish it as ONNX or another model that a backend"
                " runs",
                step="find the model",
            )
        files, mlmodel = checked(artifacts, layout.provenance), artifact.mlmodel or {}
        there = {name: size for name, size in FILES.items() if name in artifact.files}
        texts = {name: files.read(name, limit) for name, limit in there.items()}
        pyfunc = mlmodel.get("flavors", {}).get("python_function") or {}
        wanted = read_requirements(
            texts, _text(mlmodel.get("mlflow_version")), _text(pyfunc.get("python_version"))
        )
        judged = {name: hashlib.sha256(data).hexdigest() for name, data in texts.items()}
        layout = replace(
            layout,
            requirements=wanted,
            judged={**layout.judged, **judged},
            warnings=(*layout.warnings, *wanted.notes),
        )
        if (environments := self._environments()) is None:
            return replace(
                layout, environment=f"environment: {wanted.in_words}", builds_environment=True
            )
        planned = environments.look(wanted)
        return replace(
            layout,
            environment=planned.sentence,
            packages=planned.packages,
            builds_environment=not planned.is_ready,
        )

    def _with_judged_settings(
        self, layout: Layout, config: bytes, artifacts: ArtifactRoot
    ) -> Layout:
        """Judge files that are configurations of their own, and keep what was judged: a publisher
        without a manifest may bring others later.
        """
        sources = {target: path for path, target, _size in layout.files}
        files, judged = checked(artifacts, layout.provenance), {}

        def read(target: str) -> bytes:
            data = files.read(sources[target], LARGEST)
            judged[sources[target]] = hashlib.sha256(data).hexdigest()
            return data

        self._policy.check_settings(config, sources.keys(), read)
        return replace(layout, judged=judged)

    def _verify(self, signature: bytes) -> Signature:
        from ..trust.signatures import verify

        return verify(signature, self._policy.anchors or Anchors())

    def _compare(self, layout: Layout, source: Source) -> Layout:
        """Refuse a TensorRT plan that was built for something else than the servers have; what is
        not known is a warning.
        """
        if not tensorrt.is_plan(config_pbtxt.parse(layout.author_config)):
            return layout
        if self._tensorrt is None:
            self._tensorrt = tensorrt.read_target(self._tensorrt_target, self._urls)
        if reason := tensorrt.why_not(source.tags, self._tensorrt):
            raise ArtifactError(reason, step="compare with the server")
        said = tensorrt.unknown(source.tags, self._tensorrt)
        return replace(layout, warnings=(*layout.warnings, *([said] if said else [])))

    def _pinned_in_repository(self) -> frozenset[str]:
        """Models of which an ensemble that is deployed asks for a certain version."""
        if self._pinned is None:
            found: set[str] = set()
            for text in self._repository.configs() if self._repository else ():
                with contextlib.suppress(DeliveryError):
                    found |= (
                        config_pbtxt.pinned_by(config_pbtxt.parse(text))
                        if b"ensemble_scheduling" in text
                        else frozenset()
                    )
            self._pinned = frozenset(found)
        return self._pinned


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def is_whole(layout: Layout, artifacts: ArtifactRoot) -> bool:
    """False where a Python model adds to its configuration when it is loaded, or that is not
    known.
    """
    if layout.pyfunc:
        return True
    programs = [source for source, target, _size in layout.files if target.endswith(".py")]
    files = checked(artifacts, layout.provenance)
    try:
        return not any(completes(files.read(path)) for path in programs)
    except DeliveryError:
        return False
