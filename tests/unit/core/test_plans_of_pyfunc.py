# SPDX-License-Identifier: Apache-2.0
"""What is planned for a model for which MLflow's own code answers: environment first, nothing anew
that need not be, and words for which way it is served and why.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.desired import (
    DesiredModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import Manifest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.observed import (
    ObservedModel,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.pyfunc import Interface
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import (
    Record,
    check_shapes,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.requirements import (
    Requirements,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.served import (
    ServedModel,
    VersionRow,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.source import Source
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    describe,
    status_of,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import (
    BuildEnvironment,
    Load,
    Plan,
    PutSideBySide,
    Replace,
    Step,
    TryAside,
    WriteRecord,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.planner import (
    make_plan,
)

URL = "localhost:8000"
WANTED = Requirements("3.11.7", ("pandas==2.3.0", "scikit-learn==1.7.0"), None, "requirements.txt")
INTERFACE = Interface("json", "column 'tags' is an Array")
WHY = "its MLmodel does not say that it is a forest"
CONFIG = b'backend: "python"\n'


def desired(version: int = 2, **options: Any) -> DesiredModel:
    return DesiredModel.from_options(
        {"name": "churn", "model_uri": f"models:/churn/{version}", **options}
    )


def source(version: int = 2) -> Source:
    uri = parse_model_uri(f"models:/churn/{version}")
    return Source(uri, "churn", version, None, f"models:/m-{version}", "x", None, None)


def layout(version: int = 2, **more: Any) -> Layout:
    made = Layout(
        "sklearn", (("MLmodel", f"{version}/model/MLmodel", 5),), (), CONFIG, (version,), (1,),
        conversion="pyfunc", served_as="pyfunc", why=WHY, has_pyfunc=True, pyfunc=INTERFACE,
        requirements=WANTED, environment="environment: 2 requirements; 41 packages", packages=41,
        builds_environment=True, code="the program 2/model.py",
    )  # fmt: skip
    return dataclasses.replace(made, **more)


def record(version: int = 2, **more: Any) -> Record:
    uri = f"models:/churn/{version}"
    made = Record(
        "churn", f"id-{version}", uri, uri, f"models:/m-{version}", "sklearn", (version,),
        Manifest.of(()).to_dict(), "digest", "c", desired(version).request, "then", "me",
        registry_name="churn", registry_version=version, author_config=CONFIG.decode(),
        served_as="pyfunc", environment=f"env-{version}", worker="0.9",
        serving=layout().serving, code="the program 2/model.py",
    )  # fmt: skip
    return dataclasses.replace(made, **more)


def there(version: int = 2, **more: Any) -> ObservedModel:
    served = (ServedModel(URL, (VersionRow(version, "READY"),), f"id-{version}"),)
    made = ObservedModel("churn", record=record(version), folder=True, served=served)
    return dataclasses.replace(made, **more)


def kinds(plan: Plan) -> list[type[Step]]:
    return [type(step) for step in plan.steps]


NOTHING = ObservedModel("churn", served=(ServedModel(URL),))


def test_the_environment_is_built_before_anything_that_serves_is_touched() -> None:
    plan = make_plan(NOTHING, desired(), source(), layout())
    assert kinds(plan) == [BuildEnvironment, Replace, Load, WriteRecord]
    assert plan.actions[0] == "environment: 2 requirements; 41 packages"
    assert plan.actions[1] == "deploy models:/churn/2 (1 file, 5 bytes) to be served as pyfunc"
    wanted = desired(verify_aside=True, verify={"inputs": {"request": ["{}"]}})
    aside = make_plan(there(1), wanted, source(), layout())
    assert kinds(aside)[:2] == [BuildEnvironment, TryAside]


def test_an_environment_that_is_there_is_no_step() -> None:
    plan = make_plan(NOTHING, desired(), source(), layout(builds_environment=False))
    assert kinds(plan) == [Replace, Load, WriteRecord]


def test_a_diff_says_which_way_why_in_which_form_and_in_which_environment() -> None:
    native = record(1, served_as="native", serving={"why": "what is deployed of it is"})
    before = dataclasses.replace(there(1), record=native)
    plan = make_plan(before, desired(), source(), layout())
    assert plan.before["served_as"] == "native (what is deployed of it is)"
    told = {key: plan.after[key] for key in ("served_as", "form", "environment")}
    assert told == {
        "served_as": f"pyfunc ({WHY})",
        "form": "json (column 'tags' is an Array)",
        "environment": "2 requirements; 41 packages",
    }
    assert "environment" not in plan.before and "form" not in plan.before


@pytest.mark.parametrize(
    ("observed", "wanted"),
    [
        (there(), desired()),
        (there(), desired(serve_as="pyfunc")),
        (there(record=record(worker="0.1")), desired()),
        (there(record=record(served_as="native")), desired()),
        (there(record=record(served_as="native")), desired(serve_as="native")),
        (there(record=record(served_as="native")), desired(predict_timeout=5)),
        (there(record=record(served_as="native", request={})), desired(batch_requests=True)),
        (
            there(record=record(served_as="native", request=desired(serve_as="native").request)),
            desired(),
        ),
    ],
    ids=[
        "as it is", "forced to what it is", "another worker", "native", "forced native",
        "a time of pyfunc", "batches of pyfunc", "no longer forced native",
    ],
)  # fmt: skip
def test_nothing_is_loaded_again_for_what_changes_nothing(
    observed: ObservedModel, wanted: DesiredModel
) -> None:
    request = {**(observed.record.request if observed.record else {})}
    for key in ("version_folders", "serve_versions"):
        request.setdefault(key, getattr(wanted, key))
    assert observed.record
    older = dataclasses.replace(observed.record, request=request)
    assert not make_plan(dataclasses.replace(observed, record=older), wanted, source()).steps


@pytest.mark.parametrize(
    ("observed", "wanted", "said"),
    [
        (there(), desired(serve_as="native"), "deploy again, served as native,"),
        (
            there(record=record(served_as="native", serving={})),
            desired(serve_as="pyfunc"),
            "deploy again, served as pyfunc,",
        ),
        (there(), desired(predict_timeout=5), "as option predict_timeout is another one,"),
        (there(), desired(batch_requests=True), "as option batch_requests is another one,"),
        (
            there(record=record(request=desired(serve_as="pyfunc").request)),
            desired(),
            "as serve_as is auto now,",
        ),
        (
            there(lost_environment="its environment env-2 is gone"),
            desired(),
            "deploy again, as its environment env-2 is gone,",
        ),
    ],
    ids=["native", "pyfunc", "predict_timeout", "batch_requests", "auto", "environment"],
)
def test_what_needs_other_files_says_why(
    observed: ObservedModel, wanted: DesiredModel, said: str
) -> None:
    plan = make_plan(observed, wanted, source(), layout())
    assert kinds(plan) == [BuildEnvironment, Replace, Load, WriteRecord]
    assert said in plan.actions[1]


def test_an_environment_that_is_gone_is_drift() -> None:
    lost = there(lost_environment="its environment env-2 is gone")
    assert "its environment env-2 is gone" in status_of(lost)["drift"]
    assert make_plan(lost, desired(), source(), layout()).before["problems"] == [
        "its environment env-2 is gone"
    ]


def test_versions_of_the_same_signature_are_served_side_by_side() -> None:
    wanted = desired(serve_versions=2)
    before = there(1, record=record(1, request=wanted.request))
    plan = make_plan(before, wanted, source(), layout())
    assert kinds(plan) == [BuildEnvironment, PutSideBySide, Load, WriteRecord]
    other = make_plan(before, wanted, source(), layout(author_config=CONFIG + b"\n#"))
    assert Replace in kinds(other) and PutSideBySide not in kinds(other)
    native = record(1, served_as="native", request=wanted.request)
    way = make_plan(there(1, record=native), wanted, source(), layout())
    assert Replace in kinds(way)


def test_a_record_keeps_the_environments_of_the_versions_beside_it() -> None:
    old = record(1)
    new = record(2, beside=old.vouched_for([1]))
    assert new.environments == {"env-1", "env-2"}
    assert new.with_version(1).environment == "env-1"
    check_shapes(Record.from_dict(new.to_dict()), "churn")


def test_records_of_former_releases_are_native() -> None:
    data = record().to_dict()
    for key in ("served_as", "environment", "worker", "serving"):
        data.pop(key)
    old = Record.from_dict(data)
    assert (old.served_as, old.environment, old.worker, old.environments) == (
        "native",
        None,
        None,
        frozenset(),
    )
    check_shapes(old, "churn")


def test_info_tells_which_way_and_why() -> None:
    told = describe("churn", record())
    assert told["served_as"] == "pyfunc"
    assert told["pyfunc"] == {
        "why": WHY,
        "form": "json",
        "form_reason": "column 'tags' is an Array",
        "requirements": 2,
        "packages": 41,
        "environment": "env-2",
        "worker": "0.9",
    }
    assert describe("churn", record(served_as="native"))["pyfunc"] is None


def test_options_of_a_rollback_are_those_of_the_copy() -> None:
    request = desired(serve_as="pyfunc", batch_requests=True, predict_timeout=5).request
    back = desired().as_recorded(request)
    assert (back.serve_as, back.batch_requests, back.predict_timeout) == ("pyfunc", True, 5.0)
    older = desired(serve_as="native", predict_timeout=5).as_recorded({"flavor": None})
    assert (older.serve_as, older.batch_requests, older.predict_timeout) == ("auto", None, 60.0)
