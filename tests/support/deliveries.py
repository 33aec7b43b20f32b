# SPDX-License-Identifier: Apache-2.0
"""Publications and deliveries in the test's own process, without Ansible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.delivery import (
    Delivery,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.publication import publication
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)

from .servers import MLflow, Triton


def publish_model(
    registry: Registry, name: str, path: Path, **options: Any
) -> tuple[publication.PublicationPlan, publication.Published]:
    """Publish the next version of a model, with `options` of a publication.

    Raises DeliveryError when it cannot be done.
    """
    desired = publication.DesiredPublication(name, str(path), **options)
    plan = publication.plan_publication(registry, desired)
    return plan, publication.apply_publication(registry, plan)


def artifact_folder(mlflow: MLflow, version: publication.Published) -> Path:
    """Where the files of a version lie behind a server that stores them in a folder."""
    return mlflow.artifacts / version.artifact_uri.removeprefix("mlflow-artifacts:/")


def target_of(triton: Triton, mlflow: MLflow | None = None, **more: Any) -> Target:
    """The server with its repository; with `mlflow`, models come from that registry."""
    uri = {"tracking_uri": mlflow.url} if mlflow else {}
    return Target(str(triton.repository), servers=(triton.url,), **{"timeout": 60, **uri, **more})


def deliver_models(
    target: Target | Mapping[str, Any],
    wanted: Iterable[Mapping[str, Any]],
    check: bool = False,
    purge: str | None = None,
) -> list[Result]:
    """Deliver a list; `target` and each of `wanted` may be options as a module has them.

    What fails is in the results.
    """
    place = target if isinstance(target, Target) else Target.from_options(target)
    with Delivery(place) as delivery:
        models = [DesiredModel.from_options(options) for options in wanted]
        return delivery.deliver(models, check=check, purge=purge)


def deliver_model(
    target: Target | Mapping[str, Any], name: str, check: bool = False, **options: Any
) -> Result:
    """Deliver one model."""
    return deliver_models(target, [{"name": name, **options}], check)[0]


def deploy_model(target: Target | Mapping[str, Any], name: str, **options: Any) -> Result:
    """Deliver one model, which must succeed."""
    result = deliver_model(target, name, **options)
    assert result.error is None, str(result.error)
    return result
