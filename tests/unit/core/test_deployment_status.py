# SPDX-License-Identifier: Apache-2.0
"""What the registry is told of a deployment: tags, the block of a description, and nothing
twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.source import Source
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.uri import (
    parse_model_uri,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    DeliveryError,
    InvalidOption,
    NotFound,
    RegistryError,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.registry_status import (  # noqa: E501
    StatusReport,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.target import (
    Target,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.plan import (
    Load,
    Plan,
    PutSideBySide,
    Remove,
    Replace,
    RollBack,
    Step,
    Unload,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.versions import (
    SideBySide,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    VersionInfo,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.status_tags import (
    BEGIN,
    END,
    tag_key,
    with_block,
    without_block,
)

DAY = "2026-01-01T00:00:00.123456+00:00"
NEXT_DAY = "2026-01-02T00:00:00.123456+00:00"
PRESENT = "present since 2026-01-01T00:00:00Z"


class FakeRegistry:
    """Registered model → version → tags and description. ``calls`` are those that change
    something.
    """

    def __init__(self, **models: int) -> None:
        self.versions = {
            (name, number): VersionInfo(name, number, "", "READY", "", None, None, {}, (), 0)
            for name, count in models.items()
            for number in range(1, count + 1)
        }
        self.calls: list[str] = []
        self.refuses: DeliveryError | None = None
        self.meanwhile: Callable[[], object] | None = None

    def search(self, name: str) -> tuple[VersionInfo, ...]:
        if self.refuses:
            raise self.refuses
        return tuple(
            version
            for (model, number), version in sorted(self.versions.items(), reverse=True)
            if model == name
        )

    def version_info(self, name: str, version: int) -> VersionInfo:
        return self.versions[name, version]

    def change(self, call: str, name: str, version: int, **fields: Any) -> None:
        self.calls.append(f"{call} {name}/{version}")
        self.versions[name, version] = dataclasses.replace(self.versions[name, version], **fields)

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        self.change("tag", name, version, tags={**self.versions[name, version].tags, key: value})

    def delete_version_tag(self, name: str, version: int, key: str) -> None:
        self.change(
            "untag",
            name,
            version,
            tags={k: v for k, v in self.versions[name, version].tags.items() if k != key},
        )

    def set_version_description(self, name: str, version: int, text: str) -> None:
        if self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        self.change("describe", name, version, description=text)

    def tags(self, version: int, name: str = "fraud") -> dict[str, str]:
        return dict(self.versions[name, version].tags)

    def description(self, version: int, name: str = "fraud") -> str:
        return self.versions[name, version].description


def record(version: int = 1, at: str = DAY, **more: Any) -> Record:
    uri = f"models:/{more.get('registry_name', 'fraud')}/{version}"
    return dataclasses.replace(
        Record(
            "fraud",
            f"id-{version}",
            uri,
            uri,
            f"models:/m-{version}",
            "triton",
            (version,),
            Manifest.of(()).to_dict(),
            "d",
            "c",
            {"serve_versions": 1},
            at,
            "me",
            registry_name="fraud",
            registry_version=version,
            tracking_uri="http://mlflow",
        ),
        **more,
    )


def source_of(deployed: Record) -> Source:
    uri = parse_model_uri(deployed.pinned_uri)
    return Source(uri, deployed.registry_name, deployed.registry_version, None, "", "", None, None)


LAYOUT = Layout("triton", (), (), b"", (1,), (1,))


def replace(after: Record) -> Replace:
    source = source_of(after)
    return Replace("replace", source.uri, source, LAYOUT)


def result(
    before: Record | None, after: Record | None, state: str = "present", *steps: Step
) -> Result:
    """What came of a run that had to do this; without steps, of one that had nothing to do."""
    options = {
        "name": "fraud",
        "state": state,
        **({"model_uri": after.pinned_uri} if state == "present" and after else {}),
    }
    plan = Plan(
        DesiredModel.from_options(options),
        ObservedModel("fraud", record=before),
        steps,
        {},
        {},
        resolved=any(isinstance(step, (Replace, PutSideBySide)) for step in steps),
    )
    return Result("fraud", plan, after, bool(steps))


def report(
    registry: FakeRegistry,
    *results: Result,
    target: str = "gpu-1",
    check: bool = False,
    tracking_id: str = "http://mlflow",
) -> dict[str, Result]:
    one: Any = registry
    return StatusReport(one, target, tracking_id, check).add({done.name: done for done in results})


def deploy(
    registry: FakeRegistry,
    before: Record | None,
    after: Record | None,
    state: str = "present",
    *steps: Step,
    on: str = "gpu-1",
) -> tuple[str, ...]:
    """Report a change as a check run and then as a real one, which must say the same; then nothing
    is left to report.
    """
    done = result(before, after, state, *(steps or ([replace(after)] if after else [])))
    checked = report(registry, dataclasses.replace(done, record=before), target=on, check=True)[
        "fraud"
    ]
    calls = len(registry.calls)
    said = report(registry, done, target=on)["fraud"]
    assert said.changed and said.reported and said.reported == checked.reported
    assert len(registry.calls) > calls
    calls = len(registry.calls)
    again = report(registry, result(after, after, state), target=on)["fraud"]
    assert len(registry.calls) == calls and not again.changed and again.reported is None
    return said.reported.actions


# -- what changes ----------------------------------------------------------------------------------


def test_a_deployment_sets_a_tag_and_a_block() -> None:
    registry = FakeRegistry(fraud=2)
    assert deploy(registry, None, record()) == (
        "tell the registry that models:/fraud/1 is present on gpu-1",
    )
    assert registry.tags(1) == {"triton.deployed/gpu-1": PRESENT}
    assert registry.description(1).startswith(
        BEGIN
    ) and "| gpu-1 | present | 2026-01-01T00:00:00Z |" in registry.description(1)
    assert not registry.tags(2) and not registry.description(2)


def test_checking_tells_the_registry_nothing() -> None:
    registry = FakeRegistry(fraud=1)
    said = report(registry, result(None, record(), "present", replace(record())), check=True)[
        "fraud"
    ]
    assert said.changed and said.reported and not registry.calls
    diff = said.to_dict()["diff"]
    assert (
        "registry_status: {}" in diff["before"]
        and 'registry_status: {"models:/fraud/1": "present"}' in diff["after"]
    )


def test_the_version_before_loses_its_tag_and_block() -> None:
    registry = FakeRegistry(fraud=2)
    deploy(registry, None, record(1))
    registry.set_version_description("fraud", 1, "Ours.\n\n" + registry.description(1) + "\nMore.")
    assert deploy(registry, record(1), record(2, NEXT_DAY)) == (
        "tell the registry that models:/fraud/2 is present on gpu-1",
        "tell the registry that models:/fraud/1 is no longer on gpu-1",
    )
    assert registry.tags(1) == {} and registry.description(1) == "Ours.\nMore."
    assert registry.tags(2) == {"triton.deployed/gpu-1": "present since 2026-01-02T00:00:00Z"}


def test_a_rollback_turns_it_round() -> None:
    registry = FakeRegistry(fraud=2)
    deploy(registry, None, record(2))
    deploy(
        registry,
        record(2),
        record(1, NEXT_DAY),
        "rolled_back",
        RollBack("roll back", record(2), record(1)),
    )
    assert registry.tags(2) == {} and "triton.deployed/gpu-1" in registry.tags(1)


def test_a_removal_and_one_that_was_not_reported() -> None:
    registry = FakeRegistry(fraud=1)
    deploy(registry, None, record())
    removed = result(record(), None, "absent", Remove("remove"))
    assert report(registry, removed)["fraud"].reported
    assert registry.tags(1) == {} and registry.description(1) == ""
    registry.set_version_tag("fraud", 1, "triton.deployed/gpu-1", PRESENT)
    assert report(registry, result(None, None, "absent"))["fraud"].changed
    assert registry.tags(1) == {}


def test_unloading_and_loading_have_their_own_times() -> None:
    registry = FakeRegistry(fraud=1)
    deploy(registry, None, record())
    deploy(registry, record(), record(wanted="unloaded"), "unloaded", Unload("unload", ()))
    assert registry.tags(1)["triton.deployed/gpu-1"].startswith("unloaded since ")
    assert registry.tags(1)["triton.deployed/gpu-1"] > "unloaded since 2026-01-01T00:00:00Z"
    deploy(registry, record(wanted="unloaded"), record(), "present", Load("load", ()))
    assert registry.tags(1)["triton.deployed/gpu-1"] > PRESENT


def test_versions_side_by_side_are_all_present() -> None:
    registry = FakeRegistry(fraud=3)
    several = {"request": {"serve_versions": 2}}
    deploy(registry, None, record(1, **several))
    before, after = (
        record(1, **several),
        record(2, NEXT_DAY, triton_versions=(1, 2), **several),
    )
    source, versions = source_of(after), SideBySide(2, (1,), (), True)
    beside = PutSideBySide("put beside", source.uri, source, LAYOUT, before, versions)
    deploy(registry, before, after, "present", beside)
    assert registry.tags(1)["triton.deployed/gpu-1"] == PRESENT
    assert registry.tags(2)["triton.deployed/gpu-1"] == "present since 2026-01-02T00:00:00Z"


def test_another_registered_model_under_the_same_name() -> None:
    registry = FakeRegistry(fraud=1, fraud_new=1)
    deploy(registry, None, record())
    deploy(registry, record(), record(1, NEXT_DAY, registry_name="fraud_new"))
    assert registry.tags(1) == {}
    assert registry.tags(1, "fraud_new") == {
        "triton.deployed/gpu-1/fraud": "present since 2026-01-02T00:00:00Z"
    }
    assert "| gpu-1 as fraud | present |" in registry.description(1, "fraud_new")


def test_what_somebody_took_away_comes_back() -> None:
    registry = FakeRegistry(fraud=1)
    deploy(registry, None, record())
    whole = registry.description(1)
    registry.set_version_description("fraud", 1, "Written by hand.")
    said = report(registry, result(record(), record()))["fraud"]
    assert said.reported and said.reported.actions == (
        "renew the status in the description of models:/fraud/1",
    )
    assert registry.description(1) == f"Written by hand.\n\n{whole}"
    registry.delete_version_tag("fraud", 1, "triton.deployed/gpu-1")
    assert report(registry, result(record(), record()))["fraud"].changed
    assert registry.tags(1) == {"triton.deployed/gpu-1": PRESENT}


# -- several, and failures -------------------------------------------------------------------------


def test_targets_do_not_overwrite_each_other() -> None:
    registry = FakeRegistry(fraud=1)
    deploy(registry, None, record())
    deploy(registry, None, record(at=NEXT_DAY), on="gpu-2")
    assert set(registry.tags(1)) == {"triton.deployed/gpu-1", "triton.deployed/gpu-2"}
    assert "| gpu-1 |" in registry.description(1) and "| gpu-2 |" in registry.description(1)
    report(registry, result(record(), None, "absent", Remove("remove")))
    assert set(registry.tags(1)) == {"triton.deployed/gpu-2"}
    assert "| gpu-1 |" not in registry.description(1) and "| gpu-2 |" in registry.description(1)


def test_the_last_of_two_at_once_has_seen_both() -> None:
    registry = FakeRegistry(fraud=1)
    registry.meanwhile = lambda: deploy(registry, None, record(), on="gpu-2")
    deploy(registry, None, record())
    assert "| gpu-1 |" in registry.description(1) and "| gpu-2 |" in registry.description(1)


def test_a_registry_that_refuses_is_one_warning() -> None:
    registry = FakeRegistry(fraud=1)
    registry.refuses = RegistryError("MLflow refused: permission denied", step="set tag")
    other = dataclasses.replace(result(None, record(), "present", replace(record())), name="other")
    done = report(registry, result(None, record(), "present", replace(record())), other)
    assert [one.error for one in done.values()] == [None, None] and done["fraud"].changed
    assert done["fraud"].warnings == (
        (
            "its deployment status is not in the registry: MLflow refused: permission denied (nor"
            " that of other)"
        ),
    )
    assert done["other"].warnings == ()


def test_nothing_is_said_of_failures_and_of_other_registries() -> None:
    registry = FakeRegistry(fraud=1)
    failed = dataclasses.replace(
        result(None, record(), "present", replace(record())), error=NotFound("no")
    )
    elsewhere = result(record(), record(), "unloaded", Unload("unload", ()))
    assert report(registry, failed)["fraud"].reported is None
    assert report(registry, elsewhere, tracking_id="http://another")["fraud"].reported is None
    assert not registry.calls


def test_a_folder_has_no_version_to_report() -> None:
    registry = FakeRegistry(fraud=1)
    folder = record(registry_name=None, registry_version=None)
    assert report(registry, result(folder, folder))["fraud"].reported is None
    assert not registry.calls


# -- text ------------------------------------------------------------------------------------------


TAGS = {
    "triton.deployed/gpu-1": PRESENT,
    "triton.deployed/gpu-2/other": "unloaded since 2026-01-02T00:00:00Z",
    "owner": "me",
    "triton.deployed/by hand": "since | yesterday\n",
}


@pytest.mark.parametrize(
    "written",
    [
        "",
        "A text.",
        "A text.\n",
        "A text.\n\n\n",
        "| a | table |",
        f"quoted {END}",
        "<!-- mine -->",
    ],
)
@pytest.mark.parametrize("below", ["", "\nMore below.", "\n\n\nMore."])
def test_what_people_wrote_stays(written: str, below: str) -> None:
    text = with_block(written, TAGS) + below
    assert with_block(text, TAGS) == text
    other = with_block(text, {"triton.deployed/gpu-3": PRESENT})
    assert "gpu-1" not in other and "gpu-3" in other
    assert with_block(other, {}) == without_block(text)
    if not below:
        assert with_block(text, {}) == written


def test_the_block_says_what_the_tags_say() -> None:
    rows = [line for line in with_block("", TAGS).splitlines() if line.startswith("| gpu")]
    assert rows == [
        "| gpu-1 | present | 2026-01-01T00:00:00Z |",
        "| gpu-2 as other | unloaded | 2026-01-02T00:00:00Z |",
    ]


def test_a_block_without_its_end_takes_nothing_with_it() -> None:
    damaged = with_block("Above.", TAGS).removesuffix(END) + "Written below."
    text = with_block(damaged, {"triton.deployed/gpu-3": PRESENT})
    assert text.startswith(damaged) and "gpu-3" in text and with_block(text, {}) == damaged


@pytest.mark.parametrize(
    ("length", "expected"), [(3800, "| gpu-19 |"), (4700, "Deployed on 20 targets"), (4990, "")]
)
def test_a_block_fits_or_is_left_out(length: int, expected: str) -> None:
    many = {f"triton.deployed/gpu-{number}": PRESENT for number in range(20)}
    text = with_block("x" * length, many)
    assert text.startswith("x" * length) and len(text) <= 5000
    assert expected in text and (BEGIN in text) == bool(expected)


def test_keys_are_ones_that_mlflow_takes() -> None:
    assert tag_key("gpu-1.example.org", "fraud", "fraud") == "triton.deployed/gpu-1.example.org"
    assert tag_key("gpu-1", "fraud@eu", "fraud") == "triton.deployed/gpu-1/fraud at eu"


@pytest.mark.parametrize("name", ["", "a/b", "two words", "ä", "-a", "x" * 101])
def test_names_of_targets_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidOption, match="registry_status"):
        Target.from_options({"model_repository": "/models", "registry_status": name})
