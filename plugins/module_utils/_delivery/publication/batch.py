# SPDX-License-Identifier: Apache-2.0
"""Many publications in one process: importing MLflow costs a second, and one model that fails does
not stop the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..artifacts.roots import Progress
from ..errors import DeliveryError, InvalidOption, MissingLibrary
from ..outside import JsonDict
from ..registry.registry import Registry
from .publication import (
    DesiredPublication,
    PublicationPlan,
    Published,
    apply_publication,
    plan_publication,
)


@dataclass(frozen=True)
class Publication:
    """What came of one model."""

    desired: DesiredPublication
    plan: PublicationPlan | None = None
    published: Published | None = None
    error: DeliveryError | None = None
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        # A plan that could not be made for want of a library is no promise that nothing would
        # change.
        return self.plan.changed if self.plan else not self.error

    def to_dict(self) -> JsonDict:
        """For a module's result: name, changed, failed, msg, actions, diff, model."""
        plan = self.plan
        result: dict[str, object] = {
            "name": self.desired.name,
            "changed": self.changed and not self.error,
            "failed": self.error is not None,
            "actions": list(plan.actions) if plan else [],
            "model": self._model(),
        }
        if plan:
            result["diff"] = plan.as_diff()
        if self.error:
            facts = {
                key: value for key, value in self.error.facts.items() if key != "import_traceback"
            }
            result.update(msg=str(self.error), **facts)
        return result

    def _model(self) -> JsonDict:
        plan, name = self.plan, self.desired.name
        version = self.published.version if self.published else plan.version if plan else None
        model: dict[str, object] = {
            "name": name,
            "version": version,
            "model_uri": f"models:/{name}/{version}" if version else None,
        }
        if plan:
            model |= {
                "digest": self.published.digest if self.published else plan.digest,
                "content": plan.model.content,
                "backend": plan.model.backend,
                "files": plan.after["files"],
                "signer": plan.signer,
            }
        if self.published:
            model["artifact_uri"] = self.published.artifact_uri
        return model


def publish(
    registry: Registry,
    wanted: Iterable[Mapping[str, object]],
    check: bool = False,
    progress: Progress | None = None,
) -> list[Publication]:
    """Publish a list of models, each described by the options of ``DesiredPublication``.

    Raises:
        InvalidOption: a name comes twice, or an option of one of them cannot be meant; nothing was
            published then.
    """
    desired = [DesiredPublication.from_options(options) for options in wanted]
    names = [one.name for one in desired]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidOption(
            f"the list names {', '.join(repeated)} more than once",
            step="read the options",
            left="nothing was published",
        )
    return [_publish_one(registry, one, check, progress) for one in desired]


def _publish_one(
    registry: Registry, desired: DesiredPublication, check: bool, progress: Progress | None
) -> Publication:
    try:
        plan = plan_publication(registry, desired)
        if check:
            return Publication(desired, plan, warnings=plan.warnings)
        published = apply_publication(registry, plan, progress)
        return Publication(desired, plan, published, warnings=published.warnings)
    except MissingLibrary as error:
        if check:
            return Publication(
                desired,
                warnings=(
                    (
                        f"{error.message}: what would change is not known; everything is"
                        " assumed to change"
                    ),
                ),
            )
        return Publication(desired, error=error)
    except DeliveryError as error:
        return Publication(desired, error=error)
