# SPDX-License-Identifier: Apache-2.0
"""From what is wanted and what is there to what has to be done. Pure: nothing is read or written
here.

Check mode, the diff, ``changed`` and the real run all come from the one Plan.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..domain.cases import as_json, is_same
from ..domain.config_pbtxt import CONFIG_NAME
from ..domain.desired import USUAL, DesiredModel
from ..domain.journal import FolderSwap, Journal, PendingLoad, S3Swap, Trial, begun_load
from ..domain.layout import Layout
from ..domain.observed import ObservedModel
from ..domain.pyfunc import in_words
from ..domain.record import Record
from ..domain.source import Source
from ..domain.uri import ModelUri, named_uri
from ..errors import AlreadyDeployed, ForeignModel, NotFound, RepositoryError
from .aside import try_aside, warn_of_rollback
from .plan import (
    BuildEnvironment,
    Heal,
    Load,
    Plan,
    PutSideBySide,
    Reconfigure,
    Recover,
    Remove,
    Replace,
    ReplaceUnread,
    RollBack,
    SetPermissions,
    Step,
    Unload,
    Verify,
    WriteRecord,
)
from .versions import SideBySide, plan_side_by_side, serves, serves_side_by_side

_SET_PERMISSIONS = SetPermissions("set owner, group and mode of its files")


def pinned_uri(desired: DesiredModel, source: Source | None) -> str:
    """The exact thing that ``model_uri`` means, as far as it is known without asking the
    registry.
    """
    if source and source.registry_name and source.registry_version:
        return f"models:/{source.registry_name}/{source.registry_version}"
    if source:
        return source.uri.text
    uri = desired.uri
    if uri is None:
        return ""
    return f"models:/{uri.name}/{uri.version}" if uri.kind == "version" else uri.text


def is_pinned(record: Record | None, desired: DesiredModel, tracking_uri: str | None) -> bool:
    """True where the record answers for the registry: a version's content has no other number."""
    uri = desired.uri
    if record is not None and desired.keep_source:
        return True
    if record is None or uri is None or record.tracking_uri != tracking_uri:
        return False
    if uri.kind == "version":
        return (record.registry_name, record.registry_version) == (uri.name, uri.version)
    return (
        uri.kind == "logged_model"
        and record.registry_name is None
        and record.model_id == uri.model_id
    )


def why_replace(
    observed: ObservedModel, desired: DesiredModel, source: Source | None
) -> str | None:
    """Why the model's files must be brought anew, in words; None where they need not."""
    record = observed.record
    if record is None:
        return "take over" if observed.foreign else "deploy"
    if source and not _same_source(record, source):
        return (
            "replace"
            if record.pinned_uri != pinned_uri(desired, source)
            else "deploy again, as the artifact is another one,"
        )
    if source is None and not desired.keep_source and _names_another(record, desired.uri):
        return "replace"
    if not observed.folder:
        return "deploy again, as its folder is gone,"
    if lost := observed.lost_files:
        return f"deploy again, as {_and_more(lost)} changed on disk,"
    if observed.unsigned:
        return "deploy again, as nobody had asked who signed it,"
    request = record.request
    if (desired.flavor or record.flavor) != record.flavor or desired.version_folders != request.get(
        "version_folders"
    ):
        return "deploy again in another layout"
    return _why_serve_otherwise(observed, desired)


def _why_serve_otherwise(observed: ObservedModel, desired: DesiredModel) -> str | None:
    """Why other files are needed for the way in which it is to answer."""
    record = observed.record
    if record is None:
        return None
    asked, before = desired.serve_as, record.request.get("serve_as") or USUAL["serve_as"]
    if asked not in ("auto", record.served_as):
        return f"deploy again, served as {asked},"
    if record.served_as != "pyfunc":
        return None
    if asked != before and asked == "auto":
        return "deploy again, as serve_as is auto now,"
    for key in ("batch_requests", "predict_timeout"):
        if record.request.get(key, USUAL.get(key)) != getattr(desired, key):
            return f"deploy again, as option {key} is another one,"
    if observed.lost_environment:
        return f"deploy again, as {observed.lost_environment},"
    return None


def _names_another(record: Record, uri: ModelUri | None) -> bool:
    """True where no registry has to be asked to see that a URI means another artifact."""
    if uri is None:
        return False
    if uri.kind == "version":
        return (record.registry_name, record.registry_version) != (uri.name, uri.version)
    return uri.kind == "logged_model" and record.model_id not in (None, uri.model_id)


def _same_source(record: Record, source: Source) -> bool:
    return (record.source, record.registry_name, record.registry_version) == (
        source.source,
        source.registry_name,
        source.registry_version,
    )


def why_reconfigure(observed: ObservedModel, desired: DesiredModel) -> str | None:
    """Why config.pbtxt must be written anew though the files stay."""
    record = observed.record
    if record is None:
        return None
    if CONFIG_NAME in observed.changed_files:
        return "put back config.pbtxt, which changed on disk"
    for key, omitted in (("config", None), ("instance_kind", None), ("serve_versions", 1)):
        if (record.request.get(key) or omitted) != (getattr(desired, key) or omitted):
            return f"apply option {key} to config.pbtxt"
    # What a server loaded of it meanwhile is not known, and a new deploy id proves what it serves.
    if observed.touched_files and any(one.ready for one in observed.served):
        return f"load again, as {_and_more(observed.touched_files)} was touched since it was loaded"
    return None


def make_plan(
    observed: ObservedModel,
    desired: DesiredModel,
    source: Source | None = None,
    layout: Layout | None = None,
    *,
    failed_verification: str | None = None,
    proven: bool = False,
) -> Plan:
    """Decide.

    Args:
        source: what the URI means; None where the record answers for it, or where the registry
            could not be asked.
        layout: of the artifact, for a plan that replaces the files; None in a check run that cannot
            read it.
        failed_verification: why the served model does not answer as it should.
        proven: an inference has just shown that it does.

    Raises:
        AlreadyDeployed: there is a model of this name, and the caller asked for a new one.
        ForeignModel: somebody else's model of this name, and ``adopt`` is not set.
    """
    before = _before(observed)
    record = observed.record
    if desired.purged_from and (record is None or record.deployment_set != desired.purged_from):
        return Plan(desired, observed, (), before, before)  # somebody else's by now
    _refuse_taken_name(observed, desired)
    recover = (Recover(interrupted(observed.journal)),) if observed.journal else ()
    target: Record | None = None
    steps: tuple[Step, ...]
    if desired.state == "absent":
        steps = _absent_steps(observed)
    elif desired.state == "rolled_back":
        target = _rollback_target(observed, desired)
        desired = desired.as_recorded(target.request)
        steps = _rollback_steps(observed, desired, target, failed_verification)
    elif desired.uri is None:
        steps = _unload_steps(observed, desired)
    else:
        change = _change(observed, desired, desired.uri, source, layout)
        steps = _present_steps(observed, desired, change, failed_verification, proven)
    steps = recover + steps
    if desired.state == "absent":
        return Plan(desired, observed, steps, before, {"state": "absent"} if steps else before)
    before = _before(observed, failed_verification)
    after = _after(observed, desired, source, layout, target) if steps else before
    warnings = _warnings(observed, desired, layout, steps, target)
    return Plan(
        desired,
        observed,
        steps,
        before,
        after,
        warnings,
        resolved=source is not None,
        proven=proven,
    )


def resume(observed: ObservedModel, plan: Plan) -> Plan | None:
    """What is left to do where the load of an earlier run brings what is wanted; None where
    something else is.

    Args:
        plan: made as if that load's deployment were in place.
    """
    journal, load = observed.journal, observed.load
    allowed = (Recover, Load, Verify, WriteRecord)
    if (
        load is None
        or not isinstance(journal, (FolderSwap, S3Swap))
        or plan.desired.state not in ("present", "rolled_back")
        or not all(isinstance(step, allowed) for step in plan.steps)
    ):
        return None
    everywhere = tuple(one.url for one in observed.served)
    steps: tuple[Step, ...] = (
        Recover(interrupted(journal)),
        *(step for step in plan.steps if isinstance(step, Load)),
        *_verify_step(plan.desired, _proof(plan.desired, load.record), everywhere),
        WriteRecord("write the record"),
    )
    return replace(plan, observed=observed, steps=steps, before=_before(observed), resumes=journal)


def _refuse_taken_name(observed: ObservedModel, desired: DesiredModel) -> None:
    if desired.must_be_new and observed.taken:
        raise AlreadyDeployed(
            f"there already is {_what_is_there(observed)}",
            model=desired.name,
            step="plan",
            left="nothing was changed",
        )
    if observed.foreign and not desired.adopt:
        what = "a folder" if observed.folder else "a served model"
        raise ForeignModel(
            f"there is {what} of this name which this collection did not deploy; adopt: true takes"
            " it over",
            model=desired.name,
            step="plan",
            left="nothing was changed",
        )


def _what_is_there(observed: ObservedModel) -> str:
    if observed.record:
        return f"a deployment of this name ({observed.record.pinned_uri})"
    return (
        "a folder of this name in the repository"
        if observed.folder
        else "a served model of this name"
    )


def interrupted(journal: Journal) -> str:
    if isinstance(journal, Trial):
        return "unload what an interrupted run had loaded to prove it"
    if isinstance(journal, PendingLoad):
        return f"wait for the load that was given up on at {journal.since}"
    if load := begun_load(journal):
        return f"wait for the load that began at {load.since}"
    return "recover from an interrupted run"


def _warnings(
    observed: ObservedModel,
    desired: DesiredModel,
    layout: Layout | None,
    steps: tuple[Step, ...],
    target: Record | None,
) -> tuple[str, ...]:
    record = observed.record
    replaces = any(isinstance(step, (Replace, PutSideBySide, ReplaceUnread)) for step in steps)
    forward = (
        record is not None
        and record.rolled_back_from is not None
        and desired.state == "present"
        and (replaces or any(isinstance(step, Reconfigure) for step in steps))
    )
    said: tuple[str, ...] = (
        (
            (
                f"it was rolled back to {record.pinned_uri} on {record.deployed_at}; this rolls it"
                " forward"
            ),
        )
        if forward and record
        else ()
    )
    if desired.state == "unloaded" and desired.uri is None and observed.changed_files:
        changed = _and_more(observed.changed_files)
        said += (f"{changed} changed on disk: the next deployment with a model_uri puts it right",)
    if target and target.rolled_back_at and desired.rollback_to is None:
        said += (
            (
                f"it goes back to {target.pinned_uri}, which was rolled back on"
                f" {target.rolled_back_at}; rollback_to names another one"
            ),
        )
    other = record.deployment_set if record else None
    if other and desired.deployment_set and other != desired.deployment_set:
        said += (
            (
                f"it belonged to the deployment set {other}, and belongs to"
                f" {desired.deployment_set} now: two lists that name one model take it from each"
                " other"
            ),
        )
    said += warn_of_rollback(observed, desired, record, target)
    if observed.outdated and desired.state == "present" and not replaces:
        said += (observed.outdated,)
    return said + (layout.warnings if layout else ())


def _rollback_target(observed: ObservedModel, desired: DesiredModel) -> Record:
    """The deployment to be in place after a rollback.

    Raises:
        NotFound: nothing is deployed, or nothing is retained that was asked for.
    """
    record, asked = observed.record, desired.rollback_to
    if record is None:
        raise NotFound(
            "it is not deployed, so that there is nothing to go back from",
            model=desired.name,
            step="roll back",
            left="nothing was changed",
        )
    if asked is None and record.rolled_back_from:
        return record
    known = [*([record] if asked else []), *observed.retained]
    for candidate in known:
        if asked in (
            None,
            candidate.deploy_id,
            candidate.key,
            str(candidate.registry_version),
            candidate.pinned_uri,
            candidate.went_back_to,
        ):
            return candidate
    there = ", ".join(f"{one.pinned_uri} ({one.deploy_id})" for one in observed.retained) or "none"
    raise NotFound(
        f"no retained deployment{f' {asked}' if asked else ''} to go back to (retained: {there})",
        model=desired.name,
        step="roll back",
        left=f"{record.pinned_uri} is in place as before",
    )


def _rollback_steps(
    observed: ObservedModel,
    desired: DesiredModel,
    target: Record,
    failed_verification: str | None,
) -> tuple[Step, ...]:
    record = observed.record
    _refuse_lost_files(observed, target)
    if record is None or target == record:
        change = _change_in_place(observed, desired)
        return _present_steps(observed, desired, change, failed_verification, proven=False)
    everywhere = tuple(one.url for one in observed.served)
    back = RollBack(
        f"go back from {record.pinned_uri} to {target.pinned_uri} of {target.deployed_at}",
        record,
        target,
    )
    proof = _proof(desired, target)
    return (
        *try_aside(observed, desired, back, proof, everywhere),
        back,
        *((_SET_PERMISSIONS,) if _permissions_differ(observed, desired) else ()),
        *_heals(observed),
        Load(f"load on {', '.join(everywhere)}", everywhere),
        *_verify_step(desired, proof, everywhere),
        WriteRecord("write the record"),
    )


def _stays_in_place(record: Record, target: Record) -> bool:
    """Files of what is deployed may stay, as they belong to what comes back too."""
    return (
        target.manifest_digest == record.manifest_digest
        or serves_side_by_side(record)
        or serves_side_by_side(target)
    )


def _refuse_lost_files(observed: ObservedModel, target: Record) -> None:
    """Raises RepositoryError where a rollback would leave files in place that changed on disk: it
    brings none but those of a retained copy.
    """
    record = observed.record
    lost = observed.lost_files
    if record is None or (target != record and not _stays_in_place(record, target)):
        return
    if lost or not observed.folder:
        what = f"{lost[0]} changed on disk" if observed.folder else "its folder is gone"
        options = _document("present", target.pinned_uri, target.pinned_uri, None, target.request)
        asked = ", ".join(
            f"{key}: {value if isinstance(value, str) else json.dumps(value)}"
            for key, value in options.items()
            if key != "source"
        )
        raise RepositoryError(
            f"{what}, and a rollback does not bring it: deploy {target.pinned_uri} instead"
            f" ({asked})",
            model=record.name,
            step="roll back",
            left="nothing was changed",
        )


def _unload_steps(observed: ObservedModel, desired: DesiredModel) -> tuple[Step, ...]:
    if observed.record is None:
        raise NotFound(
            "it is not deployed; model_uri says what to deploy without loading it",
            model=desired.name,
            step="plan",
            left="nothing was changed",
        )
    steps = _unload_everywhere(observed)
    note = _note(observed, desired)
    return (*steps, WriteRecord(note)) if note else steps


def _unload_everywhere(
    observed: ObservedModel, states: Collection[str] = ("READY", "LOADING")
) -> tuple[Unload, ...]:
    """``states``: of a version that is still to be unloaded."""
    loaded = tuple(
        one.url for one in observed.served if any(row.state in states for row in one.rows)
    )
    return (Unload(f"unload from {', '.join(loaded)}", loaded),) if loaded else ()


def _load_steps(
    observed: ObservedModel, desired: DesiredModel, failed_verification: str | None
) -> tuple[Step, ...]:
    """What a model needs whose files are as they should be."""
    pending = isinstance(observed.journal, PendingLoad)
    heals = _heals(observed)
    healed = {url for heal in heals for url in heal.servers}
    to_load = tuple(
        one.url
        for one in observed.served
        if pending or one.url in healed or not serves(one.ready, one.deploy_id, observed.record)
    )
    steps: list[Step] = [*heals]
    if failed_verification and not to_load:
        to_load = tuple(one.url for one in observed.served)
        steps.append(
            Heal(f"load again, as it does not answer as it should ({failed_verification})", to_load)
        )
    if to_load:
        steps.append(Load(f"load on {', '.join(to_load)}", to_load))
        steps += _verify_step(desired, _proof(desired, observed.record), to_load)
    return tuple(steps)


def _overridden(observed: ObservedModel) -> tuple[str, ...]:
    """The URLs of the servers where another configuration was loaded over the deployed one."""
    return tuple(one.url for one in observed.served if observed.overridden(one))


def _heals(observed: ObservedModel) -> tuple[Heal, ...]:
    """Triton keeps a configuration that came with a load until the files on disk are newer."""
    if overridden := _overridden(observed):
        summary = "load again, as another configuration was loaded over the deployed one"
        return (Heal(summary, overridden),)
    return ()


def _and_more(paths: Sequence[str]) -> str:
    return f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}"


def _note_answers(observed: ObservedModel, steps: Sequence[Step]) -> str | None:
    """Why the record needs what servers answer after these loads; None where it has that."""
    loaded = {url for step in steps if isinstance(step, Load) for url in step.servers}
    unknown = [
        one.url
        for one in observed.served
        if one.url in loaded
        and (observed.overridden(one) or (one.answers and observed.answered(one) is None))
    ]
    return f"note the configuration that {', '.join(unknown)} serves" if unknown else None


def _proof(desired: DesiredModel, brings: Record | Layout | None) -> object:
    """What there is to verify with where the user says nothing."""
    if isinstance(brings, Record) and brings.case and desired.verify != "auto":
        return brings.case
    return brings.example if brings else None


def _verify_step(desired: DesiredModel, proof: object, urls: tuple[str, ...]) -> tuple[Verify, ...]:
    if isinstance(desired.verify, Mapping) or (desired.verify != "none" and proof):
        return (Verify("verify by an inference", urls),)
    return ()


def _absent_steps(observed: ObservedModel) -> tuple[Step, ...]:
    # Files go when nothing answers of them any more.
    steps: list[Step] = [*_unload_everywhere(observed, ("READY", "LOADING", "UNLOADING"))]
    if observed.folder or observed.record:
        steps.append(Remove("remove its files, record and retained copies"))
    return tuple(steps)


def _change(
    observed: ObservedModel,
    desired: DesiredModel,
    uri: ModelUri,
    source: Source | None,
    layout: Layout | None,
) -> Replace | PutSideBySide | ReplaceUnread | Reconfigure | SetPermissions | None:
    """The step that changes the model's folder."""
    record = observed.record
    if why := why_replace(observed, desired, source):
        way = " to be served as pyfunc" if layout and layout.pyfunc else ""
        summary = f"{why} {_describe_change(record, desired, source)}{_amount(layout)}{way}"
        if source is None or layout is None:
            return ReplaceUnread(summary)
        versions = plan_side_by_side(observed, desired, source.registry_version, layout)
        if record is None or versions is None:
            return Replace(summary, uri, source, layout)
        said = _describe_side_by_side(versions, layout)
        return PutSideBySide(said, uri, source, layout, record, versions)
    return _change_in_place(observed, desired)


def _change_in_place(
    observed: ObservedModel, desired: DesiredModel
) -> Reconfigure | SetPermissions | None:
    """The step that changes what needs no other files."""
    if observed.record and (why := why_reconfigure(observed, desired)):
        return Reconfigure(why, observed.record)
    return _SET_PERMISSIONS if _permissions_differ(observed, desired) else None


def _present_steps(
    observed: ObservedModel,
    desired: DesiredModel,
    change: Replace | PutSideBySide | ReplaceUnread | Reconfigure | SetPermissions | None,
    failed_verification: str | None,
    proven: bool,
) -> tuple[Step, ...]:
    steps: list[Step] = [change] if change else []
    if isinstance(change, (Reconfigure, PutSideBySide)) and _permissions_differ(observed, desired):
        steps.append(_SET_PERMISSIONS)
    note = _note(observed, desired) or ("write the record" if steps else None)
    unproven = observed.record is not None and observed.record.verified is None
    if proven and (unproven or _is_new_case(observed, desired)):
        note = note or "note that an inference proved it"
    if desired.state == "unloaded":
        steps = [*(_build_environment(change) if change else ()), *steps]
        steps += _unload_everywhere(observed)
    elif change and not isinstance(change, SetPermissions):
        everywhere = tuple(one.url for one in observed.served)
        brings = change.layout if isinstance(change, (Replace, PutSideBySide)) else observed.record
        proof = _proof(desired, brings)
        steps = [*try_aside(observed, desired, change, proof, everywhere), *steps]
        steps = [*_build_environment(change), *steps]
        steps += [
            *(() if isinstance(change, Replace) else _heals(observed)),
            Load(f"load on {', '.join(everywhere)}", everywhere),
            *_verify_step(desired, proof, everywhere),
        ]
    else:
        steps += _load_steps(observed, desired, failed_verification)
        verifies = any(isinstance(step, Verify) for step in steps)
        if verifies and (unproven or _is_new_case(observed, desired)):
            note = note or "note what the inference proves"
    if note := note or _note_answers(observed, steps):
        steps.append(WriteRecord(note))
    return tuple(steps)


def _build_environment(change: Step) -> tuple[BuildEnvironment, ...]:
    """What a Python model needs before anything of it can be made."""
    if not isinstance(change, (Replace, PutSideBySide)):
        return ()
    layout = change.layout
    fetches = not isinstance(change, PutSideBySide) or change.versions.fetch
    if not fetches or not layout.requirements or not layout.builds_environment:
        return ()
    return (BuildEnvironment(layout.environment or "environment", layout.requirements),)


def _is_new_case(observed: ObservedModel, desired: DesiredModel) -> bool:
    """What the user says to verify with is not what the record has."""
    if observed.record is None or not isinstance(desired.verify, Mapping):
        return False
    return not is_same(observed.record.case, as_json(desired.verify))


def _describe_side_by_side(placed: SideBySide, layout: Layout) -> str:
    kept, retired = (", ".join(map(str, versions)) for versions in (placed.kept, placed.retired))
    parts = [
        (
            f"add version {placed.wanted}{f' side by side with {kept}' if kept else ''}"
            f"{_amount(layout)}"
            if placed.fetch
            else f"make version {placed.wanted} the highest"
        )
    ]
    return ", ".join([*parts, *([f"retire version {retired}"] if retired else [])])


def _describe_change(record: Record | None, desired: DesiredModel, source: Source | None) -> str:
    wanted = pinned_uri(desired, source)
    return (
        wanted
        if record is None or record.pinned_uri == wanted
        else f"{record.pinned_uri} by {wanted}"
    )


def _amount(layout: Layout | None) -> str:
    return (
        f" ({len(layout.files)} file{'s' * (len(layout.files) != 1)}, {layout.size} bytes)"
        if layout
        else ""
    )


def _permissions_differ(observed: ObservedModel, desired: DesiredModel) -> bool:
    record = observed.record
    return record is not None and (
        observed.modes_differ
        or any(
            record.request.get(key) != getattr(desired, key) for key in ("owner", "group", "mode")
        )
    )


def _note(observed: ObservedModel, desired: DesiredModel) -> str | None:
    record = observed.record
    if record is None:
        return None
    wanted = "unloaded" if desired.state == "unloaded" else "loaded"
    if record.wanted != wanted:
        return f"note that it is to be {wanted}"
    uri = desired.uri
    if uri and (_asked_uri(record) != desired.asked_uri or record.alias != desired.asked_alias):
        return f"note that it is asked for as {desired.asked_uri}"
    if record.rolled_back_from and desired.is_choice:
        return "note that it is asked for again after the rollback to it"
    if desired.deployment_set and record.deployment_set != desired.deployment_set:
        return f"note that it belongs to the deployment set {desired.deployment_set}"
    if desired.depends_on is not None and record.depends_on != desired.depends_on:
        return f"note that it depends on {', '.join(desired.depends_on) or 'no other model'}"
    if observed.touched_files:
        return "note the new times of its files"
    return None


def _asked_uri(record: Record) -> str:
    """What a record says was asked for; older releases wrote the version that a controller had
    pinned an alias to.
    """
    if record.alias and record.registry_name and record.model_uri == record.pinned_uri:
        return named_uri(record.registry_name, record.alias)
    return record.model_uri


def _before(observed: ObservedModel, failed_verification: str | None = None) -> dict[str, object]:
    record = observed.record
    if record is None:
        if not observed.foreign:
            return {"state": "absent"}
        return {
            "state": "not deployed by this collection",
            "served": {one.url: list(one.ready) for one in observed.served if one.ready},
        }
    state = "present" if record.wanted == "loaded" else "unloaded"
    document = {
        **_document(state, record.pinned_uri, _asked_uri(record), record.alias, record.request),
        **_about(record),
    }
    problems = [f"{path} changed on disk" for path in observed.changed_files]
    problems += [f"{path} was touched" for path in observed.touched_files]
    if not observed.folder:
        problems = ["the folder is gone"]
    problems += [observed.lost_environment] if observed.lost_environment else []
    problems += [
        (
            f"not served by {one.url}"
            if not one.ready
            else f"another deployment is served by {one.url}"
        )
        for one in observed.served
        if record.wanted == "loaded" and not serves(one.ready, one.deploy_id, record)
    ]
    problems += [
        f"another configuration is served by {url}"
        for url in _overridden(observed)
        if record.wanted == "loaded"
    ]
    problems += (
        [f"does not answer as it should: {failed_verification}"] if failed_verification else []
    )
    problems += ["permissions were changed"] if observed.modes_differ else []
    return {**document, **({"problems": problems} if problems else {})}


def _after(
    observed: ObservedModel,
    desired: DesiredModel,
    source: Source | None,
    layout: Layout | None,
    target: Record | None,
) -> dict[str, object]:
    record = target or observed.record
    about = _about(layout or record)
    if desired.uri is None:
        if record is None:
            return {"state": "absent"}
        state = "unloaded" if desired.state == "unloaded" else "present"
        document = _document(
            state, record.pinned_uri, _asked_uri(record), record.alias, record.request
        )
        return {**document, **about}
    kept = (
        source is None
        and record is not None
        and (
            desired.keep_source
            or (desired.uri.kind == "logged_model" and not _names_another(record, desired.uri))
        )
    )
    pinned = record.pinned_uri if kept and record else pinned_uri(desired, source)
    document = _document(
        desired.state, pinned, desired.asked_uri, desired.asked_alias, desired.request
    )
    return {**document, **about}


def _about(model: Layout | Record | None) -> dict[str, object]:
    """What of it is code, and which way it is served."""
    if model is None:
        return {}
    said: dict[str, object] = {"code": model.code} if model.code else {}
    serving = model.serving
    if model.served_as != "native" or serving.get("why"):
        why = serving.get("why")
        said["served_as"] = f"{model.served_as} ({why})" if why else model.served_as
    if model.served_as == "pyfunc":
        reason = serving.get("form_reason")
        said["form"] = f"{serving.get('form')} ({reason})" if reason else str(serving.get("form"))
        said["environment"] = in_words(serving.get("requirements"), serving.get("packages"))
    return said


def _document(
    state: str, pinned: str, asked: str, alias: str | None, request: Mapping[str, object]
) -> dict[str, object]:
    document: dict[str, object] = {"state": state, "source": pinned}
    if asked != pinned:
        document["model_uri"] = asked
    if alias:
        document["alias"] = alias
    options = {
        key: value
        for key, value in request.items()
        if value is not None and value != USUAL.get(key)
    }
    return {**document, **dict(sorted(options.items()))}
