# SPDX-License-Identifier: Apache-2.0
"""What a user is told of a model: what was done, what is deployed, and where disk, record and
servers differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..domain.journal import BegunLoad, PendingLoad
from ..domain.observed import ObservedModel
from ..domain.record import Record
from ..domain.served import ServedModel
from ..errors import DeliveryError
from ..outside import JsonDict

if TYPE_CHECKING:  # short commands import nothing that plans
    from ..planning.outcome import Outcome
    from ..planning.plan import Plan


@dataclass(frozen=True)
class Reported:
    """What the registry was told of a deployment, or would be: as actions, and the states of
    versions before and after.
    """

    actions: tuple[str, ...]
    before: Mapping[str, str]
    after: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """What came of one model."""

    name: str
    plan: Plan | None = None
    record: Record | None = None
    changed: bool = False
    error: DeliveryError | None = None
    warnings: tuple[str, ...] = ()
    reported: Reported | None = None
    observed: ObservedModel | None = None
    """What was there before, as far as that could be read."""

    @classmethod
    def of(cls, name: str, outcome: Outcome, observed: ObservedModel | DeliveryError) -> Result:
        """What was reported of it is not known yet."""
        there = observed if isinstance(observed, ObservedModel) else None
        record = outcome.record
        if record is None and outcome.error and outcome.plan is None and there:
            record = there.record  # nothing was done
        return cls(
            name, outcome.plan, record, outcome.changed, outcome.error, outcome.warnings,
            observed=there,
        )  # fmt: skip

    def to_dict(self) -> JsonDict:
        """For a module's result: name, changed, failed, msg, actions, noted, reported, swap,
        diff, model, warnings.
        """
        reported = list(self.reported.actions) if self.reported else []
        result: dict[str, object] = {
            "name": self.name,
            "changed": self.changed,
            "failed": self.error is not None,
            "actions": [*(self.plan.actions if self.plan else ()), *reported],
            "noted": list(self.plan.notes) if self.plan else [],
            "reported": reported,
            "swap": self.plan.swap if self.plan else None,
            "model": self._describe(),
        }
        if self.plan:
            result["diff"] = self._diff(self.plan)
        if self.error:
            facts = {
                key: value for key, value in self.error.facts.items() if key != "import_traceback"
            }
            result.update(msg=str(self.error), **facts)
        return result

    def _describe(self) -> JsonDict:
        """The deployment in place; of a model that failed, what is known of it."""
        described = describe(self.name, self.record)
        if self.error and self.record is None:
            if self.observed is None:
                described["state"] = "unknown"
            elif self.observed.foreign:
                described["state"] = "foreign"
        return described

    def _diff(self, plan: Plan) -> dict[str, str]:
        diff = plan.diff()
        if self.reported and self.reported.before != self.reported.after:
            for side, states in (("before", self.reported.before), ("after", self.reported.after)):
                diff[side] += f"registry_status: {json.dumps(states, sort_keys=True)}\n"
        return diff


def describe(name: str, record: Record | None) -> JsonDict:
    """The user's view of a deployment; ``verified`` is None where no inference proved it."""
    if record is None:
        return {"name": name, "state": "absent"}
    return {
        "name": name,
        "state": "present" if record.wanted == "loaded" else "unloaded",
        "model_uri": record.model_uri,
        "source": record.pinned_uri,
        "alias": record.alias,
        "registry_name": record.registry_name,
        "registry_version": record.registry_version,
        "flavor": record.flavor,
        "served_as": record.served_as,
        "pyfunc": _describe_pyfunc(record),
        "triton_versions": list(record.triton_versions),
        "deploy_id": record.deploy_id,
        "digest": record.manifest_digest,
        "config_digest": record.config_digest,
        "code": record.code,
        "size": sum(entry["size"] for entry in record.manifest["files"]),
        "deployed_at": record.deployed_at,
        "deployed_by": record.deployed_by,
        "verified": record.verified,
        "proof": dict(record.proof) if record.proof else None,
        "replaced": record.replaced,
        "signed_by": dict(record.signed_by) if record.signed_by else None,
        "deployment_set": record.deployment_set,
        "rolled_back_from": record.rolled_back_from,
        "transaction": record.key,
        "options": {key: value for key, value in record.request.items() if value is not None},
    }


def _describe_pyfunc(record: Record) -> JsonDict | None:
    """Of a model for which MLflow's own code answers."""
    if record.served_as != "pyfunc":
        return None
    keys = ("why", "form", "form_reason", "requirements", "packages")
    told = {key: record.serving.get(key) for key in keys}
    return {**told, "environment": record.environment, "worker": record.worker}


def status_of(observed: ObservedModel) -> JsonDict:
    """Keys ready, servers, drift, foreign; and state where that is somebody else's."""
    record = observed.record
    servers = [
        {
            "url": one.url,
            "deploy_id": one.deploy_id,
            "ready_versions": list(one.ready),
            "versions": [
                {"version": row.version, "state": row.state, "reason": row.reason}
                for row in one.rows
            ],
        }
        for one in observed.served
    ]
    drift = [f"{path} changed on disk" for path in observed.changed_files]
    drift += [f"{path} was touched" for path in observed.touched_files]
    drift += ["permissions were changed"] if observed.modes_differ else []
    drift += [observed.lost_environment] if observed.lost_environment else []
    if record:
        drift += [] if observed.folder else ["its folder is gone"]
        drift += [said for one in observed.served if (said := _drift_of(observed, record, one))]
    elif observed.foreign:
        drift.append("this collection did not deploy it")
    if observed.journal:
        load = observed.load or observed.journal
        drift.append(
            f"a load has been pending since {load.since}; the next run waits for it"
            if isinstance(load, (BegunLoad, PendingLoad))
            else "a run that changed it was interrupted; the next run undoes or finishes it"
        )
    ready = bool(record) and all(one.ready for one in observed.served)
    return {
        "ready": ready,
        "servers": servers,
        "drift": drift,
        "foreign": observed.foreign,
        **({"state": "foreign"} if observed.foreign else {}),
    }


def _drift_of(observed: ObservedModel, record: Record, served: ServedModel) -> str | None:
    """Where a server is not as the record has it."""
    url = served.url
    if record.wanted == "unloaded":
        doing = {"READY": "serves", "LOADING": "loads"}
        done = next((doing[row.state] for row in served.rows if row.state in doing), None)
        return f"{url} {done} it though it is to stay unloaded" if done else None
    if not served.ready:
        return f"{url} does not serve it"
    if (served.deploy_id or "") != record.deploy_id:
        other = served.deploy_id or "a deployment without an id"
        return f"{url} serves {other} instead of {record.deploy_id}"
    if said := _other_versions(record, served):
        return said
    if observed.overridden(served):
        return f"{url} serves another configuration, which was loaded over the deployed one"
    return None


def _other_versions(record: Record, served: ServedModel) -> str | None:
    """Which versions a server lacks of a deployment, or has beside it."""
    ready, ours = set(served.ready), set(record.triton_versions)
    is_side_by_side = int(record.request.get("serve_versions") or 1) > 1
    lacks = sorted(ours - ready) if is_side_by_side or not ready & ours else []
    for what, versions in (("does not serve", lacks), ("also serves", sorted(ready - ours))):
        if versions:
            return f"{served.url} {what} version {', '.join(map(str, versions))}"
    return None
