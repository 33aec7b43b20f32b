# SPDX-License-Identifier: Apache-2.0
"""What would keep a model from loading is said before Triton is asked, in check mode and when
publishing too, and each remedy that is named works. What somebody loads over a deployment is found.
"""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import DeliveryError
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
from support.deliveries import deliver_model, deliver_models, deploy_model, target_of
from support.models import make_ensemble, make_python
from support.servers import MLflow, Triton

pytestmark = pytest.mark.takes(45)


@pytest.fixture(scope="module")
def target(triton: Triton) -> Target:
    return target_of(triton, timeout=20)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Each test's models have names of their own."""
    return f"k{zlib.crc32(request.node.name.encode())}"


def refused(target: Target, triton: Triton, name: str, says: str, **options: Any) -> None:
    """A check run and a real one say the same, and nothing was asked of the server."""
    before = triton.log.stat().st_size
    for check in (True, False):
        result = deliver_model(target, name, check, **options)
        assert result.error is not None
        assert says in str(result.error)
        assert "othing was changed" in str(result.error)
    with open(triton.log, "rb") as log:
        log.seek(before)
        assert name.encode() not in log.read()


def refused_when_published(mlflow: MLflow, name: str, folder: Path, says: str) -> None:
    with pytest.raises(DeliveryError, match=says):
        publication.plan_publication(
            Registry(mlflow.url, 30), publication.DesiredPublication(name, str(folder))
        )


def drift_of(target: Target, name: str) -> list[str]:
    with Delivery(target) as delivery:
        (status,) = delivery.status([name])
    return list(status["drift"])


# ---- files that a backend needs ------------------------------------------------------------------


def test_a_python_version_without_its_file_is_refused_before_triton_is_asked(
    target: Target, triton: Triton, mlflow: MLflow, tmp_path: Path, name: str
) -> None:
    sample = make_python(tmp_path / "good", name)
    deploy_model(target, name, model_uri=str(sample.folder))
    wrong = make_python(tmp_path / "wrong", name, identity=2)
    (wrong.folder / "1" / "model.py").rename(wrong.folder / "1" / "main.py")

    says = "version folder 1 has no model.py, only main.py, which backend python loads"
    refused(target, triton, name, says, model_uri=str(wrong.folder))
    refused_when_published(mlflow, name, wrong.folder, says)
    assert sample.differences(triton.infer(name, sample.request())[1]) == []

    # As it says.
    config = {"default_model_filename": "main.py"}
    deploy_model(target, name, model_uri=str(wrong.folder), config=config)
    assert wrong.differences(triton.infer(name, wrong.request())[1]) == []
    (wrong.folder / "1" / "main.py").rename(wrong.folder / "1" / "model.py")
    deploy_model(target, name, model_uri=str(wrong.folder))
    refused(
        target,
        triton,
        name,
        "version folder 1 has no main.py",
        model_uri=str(wrong.folder),
        config=config,
    )


def test_a_version_that_the_policy_does_not_load_is_not_judged(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    sample = make_python(tmp_path, name, version=2)
    (sample.folder / "1").mkdir()
    (sample.folder / "1" / "notes.txt").write_text("an older one")
    deploy_model(target, name, model_uri=str(sample.folder))
    assert triton.infer(name, sample.request())[0] == 200
    refused(
        target,
        triton,
        name,
        "version folder 1 has no model.py",
        model_uri=str(sample.folder),
        config={"version_policy": {"all": {}}},
    )


def test_a_comment_in_latin_1_is_deployed_and_published_in_utf8(
    target: Target, triton: Triton, mlflow: MLflow, tmp_path: Path, name: str
) -> None:
    sample = make_python(tmp_path, name)
    config = sample.folder / "config.pbtxt"
    config.write_bytes(b"# gr\xf6\xdfe\n" + config.read_bytes())
    deploy_model(target, name, model_uri=str(sample.folder))
    assert sample.differences(triton.infer(name, sample.request())[1]) == []
    live = (triton.repository / name / "config.pbtxt").read_bytes()
    assert live.decode().startswith("# gr\u00f6\u00dfe\n")
    assert not deploy_model(target, name, model_uri=str(sample.folder)).changed

    planned = publication.plan_publication(
        Registry(mlflow.url, 30), publication.DesiredPublication(name, str(sample.folder))
    )
    (entry,) = [one for one in planned.model.manifest.files if one.path == "config.pbtxt"]
    assert entry.size == len(config.read_bytes().decode("latin-1").encode())


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"max_batch_size": -1}, "its max_batch_size is -1"),
        ({"dynamic_batching": {"preferred_batch_size": [9]}}, "write sizes from 1 to"),
        ({"instance_group": [{"kind": "KIND_CPU", "gpus": [0]}]}, "leave gpus out"),
        ({"default_model_filename": "my model.py"}, "write it with letters from a to z"),
    ],
)
def test_what_triton_refuses_is_refused_before_it_is_asked(
    target: Target,
    triton: Triton,
    mlflow: MLflow,
    tmp_path: Path,
    name: str,
    config: dict[str, Any],
    says: str,
) -> None:
    """As the author's, as an overlay of a new model and as one of a deployed model."""
    sample = make_python(tmp_path, name)
    (sample.folder / "1" / "my model.py").write_bytes(
        (sample.folder / "1" / "model.py").read_bytes()
    )
    model = {"model_uri": str(sample.folder)}
    refused(target, triton, name, says, **model, config=config)
    deploy_model(target, name, **model)
    refused(target, triton, name, says, **model, config=config)
    assert sample.differences(triton.infer(name, sample.request())[1]) == []

    text = (sample.folder / "config.pbtxt").read_bytes()
    message = config_pbtxt.apply_overlay(config_pbtxt.parse(text), config)
    (sample.folder / "config.pbtxt").write_bytes(config_pbtxt.render(message))
    refused(target, triton, name, says, **model)
    refused_when_published(mlflow, name, sample.folder, says)


def test_a_policy_that_loads_nothing_is_refused(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    sample = make_python(tmp_path, name)
    with open(sample.folder / "config.pbtxt", "a", encoding="utf-8") as config:
        config.write("version_policy { specific { versions: [ 3 ] } }\n")
    says = "its version_policy loads none of its version folders (1)"
    refused(target, triton, name, says, model_uri=str(sample.folder))
    deploy_model(target, name, model_uri=str(sample.folder), config={"version_policy": None})


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_a_rollback_to_what_is_there_loads_no_file_that_changed_on_disk(
    target: Target, triton: Triton, tmp_path: Path, name: str, change: str
) -> None:
    sample = make_python(tmp_path, name)
    deploy_model(target, name, model_uri=str(sample.folder))
    deploy_model(target, name, model_uri=str(sample.folder), config={"max_batch_size": 4})
    live = triton.repository / name / "1" / "model.py"
    if change == "gone":
        live.unlink()
    else:
        live.write_text(live.read_text() + "\n# by hand\n")

    says = "1/model.py changed on disk, and a rollback does not bring it"
    refused(target, triton, name, says, state="rolled_back")
    # As it says.
    assert f"deploy {sample.folder} instead (state: present)" in str(
        deliver_model(target, name, state="rolled_back").error
    )
    deploy_model(target, name, model_uri=str(sample.folder))
    assert triton.model_config(name)["max_batch_size"] == 8
    assert sample.differences(triton.infer(name, sample.request())[1]) == []

    live.unlink()
    refused(target, triton, name, "1/model.py changed on disk", state="rolled_back")


def test_one_models_lost_file_keeps_no_other_model_from_being_served(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    for model in (name, f"{name}-other"):
        deploy_model(target, model, model_uri=str(make_python(tmp_path, model).folder))
    (triton.repository / name / "1" / "model.py").unlink()
    triton.restart()
    assert f"Model {name} is left out: version folder 1 has no model.py" in triton.log_text()
    assert triton.call(f"v2/models/{name}-other/ready")[0] == 200
    deploy_model(target, name, model_uri=str(tmp_path / name))
    assert triton.call(f"v2/models/{name}/ready")[0] == 200


# ---- ensembles -----------------------------------------------------------------------------------


def test_an_ensembles_step_without_a_version_is_refused_with_what_works(
    target: Target, triton: Triton, mlflow: MLflow, tmp_path: Path, name: str
) -> None:
    member = make_python(tmp_path, f"{name}-part")
    ensemble = make_ensemble(tmp_path, name, [member])
    config = ensemble.folder / "config.pbtxt"
    whole = config.read_text()
    assert "model_version: -1" in whole
    config.write_text(whole.replace("model_version: -1", ""))
    deploy_model(target, member.name, model_uri=str(member.folder))

    says = f"step 1 of the ensemble ('{member.name}') has no model_version"
    refused(target, triton, name, says, model_uri=str(ensemble.folder))
    refused_when_published(mlflow, name, ensemble.folder, "write model_version: -1 for the newest")

    config.write_text(whole)
    deploy_model(target, name, model_uri=str(ensemble.folder))
    assert ensemble.differences(triton.infer(name, ensemble.request())[1]) == []


def test_a_version_that_no_member_has_is_refused(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    member = make_python(tmp_path, f"{name}-part")
    pinned = make_ensemble(tmp_path, name, [member], pinned=7)
    both = [
        {"name": member.name, "model_uri": str(member.folder)},
        {"name": name, "model_uri": str(pinned.folder)},
    ]
    says = f"it asks for version 7 of '{member.name}', which has 1"
    for check in (True, False):
        part, whole = deliver_models(target, both, check)
        assert part.error is None
        assert says in str(whole.error)
    refused(target, triton, name, says, model_uri=str(pinned.folder))  # deployed, not listed

    config = pinned.folder / "config.pbtxt"
    config.write_text(config.read_text().replace("model_version: 7", "model_version: 1"))
    deploy_model(target, name, model_uri=str(pinned.folder))
    assert pinned.differences(triton.infer(name, pinned.request())[1]) == []


# What is put for what in an ensemble over one member, what is said, and what would work.
UNFIT = {
    "input": ('key: "x" value', 'key: "z" value', "maps the input 'z' of", None),
    "output": ('key: "y" value', 'key: "z" value', "maps the output 'z' of", None),
    "type": ("TYPE_FP32", "TYPE_INT32", "its tensor 'x' is TYPE_INT32 for the ensemble", None),
    "dims": ("[ 3 ]", "[ 4 ]", "its tensor 'x' has the shape [-1, 4]", None),
    "batch": ("size: 8", "size: 16", "its max_batch_size is 16, and that", {"max_batch_size": 8}),
    "optimization": (
        "max_batch",
        "optimization { }\nmax_batch",
        "has optimization, which only its members may have",
        {"optimization": None},
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_an_ensemble_that_does_not_fit_its_member_is_refused(
    target: Target, triton: Triton, tmp_path: Path, name: str, kind: str
) -> None:
    old, new, says, remedy = UNFIT[kind]
    member = make_python(tmp_path, f"{name}-part")
    ensemble = make_ensemble(tmp_path, name, [member])
    config = ensemble.folder / "config.pbtxt"
    whole = config.read_text()
    config.write_text(whole.replace(old, new))
    both = [
        {"name": member.name, "model_uri": str(member.folder)},
        {"name": name, "model_uri": str(ensemble.folder)},
    ]
    for check in (True, False):
        part, refused_one = deliver_models(target, both, check)
        assert part.error is None
        assert says in str(refused_one.error)
    refused(target, triton, name, says, model_uri=str(ensemble.folder))  # deployed, not listed

    # Triton does refuse it.
    (triton.repository / name / "1").mkdir(parents=True)
    (triton.repository / name / "config.pbtxt").write_text(config.read_text())
    assert triton.load(name)[0] != 200
    shutil.rmtree(triton.repository / name)
    if not remedy:
        config.write_text(whole)
    deploy_model(target, name, model_uri=str(ensemble.folder), config=remedy)
    assert ensemble.differences(triton.infer(name, ensemble.request())[1]) == []


@pytest.mark.parametrize("change", ["dims", "batch"])
def test_a_member_that_its_deployed_ensemble_does_not_fit_is_refused(
    target: Target, triton: Triton, tmp_path: Path, name: str, change: str
) -> None:
    member = make_python(tmp_path, f"{name}-part")
    ensemble = make_ensemble(tmp_path, name, [member])
    deploy_model(target, member.name, model_uri=str(member.folder))
    deploy_model(target, name, model_uri=str(ensemble.folder))
    tensor = {"name": "x", "data_type": "TYPE_FP32", "dims": [4]}
    config = {"max_batch_size": 4} if change == "batch" else {"input": [tensor]}
    says = f"'{name}' is deployed, uses it, and could not be loaded any more: its"
    options = {"model_uri": str(member.folder), "config": config}
    refused(target, triton, member.name, says, **options)
    # As it says.
    lower = {"max_batch_size": 4} if change == "batch" else {"input": [tensor]}
    both = [
        {"name": member.name, **options},
        {"name": name, "model_uri": str(ensemble.folder), "config": lower},
    ]
    assert [str(one.error) for one in deliver_models(target, both)] == ["None", "None"]


def test_a_member_that_is_nowhere_is_refused(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    first, second = (make_python(tmp_path, f"{name}-{part}") for part in "ab")
    deploy_model(target, first.name, model_uri=str(first.folder))
    deploy_model(target, name, model_uri=str(make_ensemble(tmp_path / "1", name, [first]).folder))
    ensemble = make_ensemble(tmp_path / "2", name, [second])
    says = f"its member '{second.name}' is neither in the list, nor in the repository, nor served"
    refused(target, triton, name, says, model_uri=str(ensemble.folder))

    both = [
        {"name": second.name, "model_uri": str(second.folder)},
        {"name": name, "model_uri": str(ensemble.folder)},
        {"name": first.name, "state": "absent"},
    ]
    assert [one.error for one in deliver_models(target, both)] == [None] * 3
    says = f"its member '{first.name}' is neither in the list"
    refused(target, triton, name, says, state="rolled_back")


def test_what_depends_on_names_and_is_nowhere_is_warned_about(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    called, caller = (make_python(tmp_path, f"{name}-{part}") for part in "ab")
    options = {"model_uri": str(caller.folder), "depends_on": [called.name]}
    said = f"depends_on names '{called.name}', which is neither in the list"
    for check in (True, False):
        result = deliver_model(target, caller.name, check, **options)
        assert result.error is None and result.changed
        assert [said in warning for warning in result.warnings] == [True]
    deploy_model(target, called.name, model_uri=str(called.folder))
    again = deploy_model(target, caller.name, config={"max_batch_size": 4}, **options)
    assert again.warnings == ()


def test_a_version_that_its_member_does_not_load_is_refused(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    member = make_python(tmp_path, f"{name}-part")
    make_python(tmp_path, f"{name}-part", version=2, identity=2)
    pinned = make_ensemble(tmp_path, name, [member], pinned=1)
    deploy_model(target, member.name, model_uri=str(member.folder))
    says = f"it asks for version 1 of '{member.name}', which has 1, 2 and of these loads 2 alone"
    refused(target, triton, name, says, model_uri=str(pinned.folder))

    # As it says.
    policy = {"version_policy": {"specific": {"versions": [1]}}}
    deploy_model(target, member.name, model_uri=str(member.folder), config=policy)
    deploy_model(target, name, model_uri=str(pinned.folder))
    assert pinned.differences(triton.infer(name, pinned.request())[1]) == []


def test_a_member_that_is_to_stay_unloaded_is_not_loaded_by_its_ensemble(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    member = make_python(tmp_path, f"{name}-part")
    ensemble = make_ensemble(tmp_path, name, [member])
    unloaded = {"name": member.name, "model_uri": str(member.folder), "state": "unloaded"}
    deploy_model(target, **unloaded)
    says = f"its member '{member.name}' is to stay unloaded, and would be loaded with it"
    refused(target, triton, name, says, model_uri=str(ensemble.folder))
    both = [unloaded, {"name": name, "model_uri": str(ensemble.folder)}]
    for check in (True, False):
        part, whole = deliver_models(target, both, check)
        assert part.error is None
        assert says in str(whole.error)
    assert drift_of(target, member.name) == []

    both[0] = {**unloaded, "state": "present"}
    assert [one.error for one in deliver_models(target, both)] == [None, None]


@pytest.mark.parametrize("where", ["repository", "server"])
def test_an_ensemble_that_somebody_else_deployed_counts(
    target: Target, triton: Triton, tmp_path: Path, name: str, where: str
) -> None:
    member = make_python(tmp_path, f"{name}-part")
    theirs = make_ensemble(tmp_path, name, [member])
    deploy_model(target, member.name, model_uri=str(member.folder))
    shutil.copytree(theirs.folder, triton.repository / name)
    assert triton.load(name)[0] == 200
    if where == "server":  # as where its files lie in another repository of the server
        (triton.repository / name / "config.pbtxt").unlink()

    says = f"'{name}' uses it, and no record here tells of it: unload that from the server"
    refused(target, triton, member.name, says, state="absent")
    refused(target, triton, member.name, says, state="unloaded")
    options = {"model_uri": str(member.folder), "config": {"max_batch_size": 4}}
    result = deliver_model(target, member.name, True, **options)
    assert any("it could not be loaded any more: its max_batch" in one for one in result.warnings)
    assert theirs.differences(triton.infer(name, theirs.request())[1]) == []

    # As it says.
    if where == "repository":
        both = [
            {"name": member.name, "state": "absent"},
            {"name": name, "state": "absent", "adopt": True},
        ]
        assert [one.error for one in deliver_models(target, both)] == [None, None]
    else:
        assert triton.call(f"v2/repository/models/{name}/unload", {})[0] == 200
        deploy_model(target, member.name, state="absent")


def test_a_version_that_is_not_the_highest_folder_is_verified_where_it_alone_is_loaded(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    sample = make_python(tmp_path, name)
    make_python(tmp_path, name, version=2, identity=2)
    options = {
        "model_uri": str(sample.folder),
        "config": {"version_policy": {"specific": {"versions": [1]}}},
        "verify": {"inputs": {"x": [[1, 2, 3]]}, "outputs": {"y": [[2, 4, 6]]}},
    }
    deploy_model(target, name, **options)
    assert triton.infer(name, sample.request())[0] == 200
    assert not deploy_model(target, name, **options).changed


# ---- what this server cannot read ----------------------------------------------------------------


def test_a_field_newer_than_the_server_is_refused(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    sample = make_python(tmp_path, name)
    with open(sample.folder / "config.pbtxt", "a", encoding="utf-8") as config:
        config.write("model_metrics { }\n")
    says = "has the field 'model_metrics' (line 10), which Triton knows since 2.52 (24.11), and"
    refused(target, triton, name, says, model_uri=str(sample.folder))
    over_grpc = replace(target, servers=(f"grpc://{triton.grpc_url}",))
    refused(over_grpc, triton, name, says, model_uri=str(sample.folder))

    deploy_model(target, name, model_uri=str(sample.folder), config={"model_metrics": None})
    assert triton.infer(name, sample.request())[0] == 200
    refused(target, triton, name, says, model_uri=str(sample.folder))


def test_a_no_break_space_is_refused(
    target: Target, triton: Triton, mlflow: MLflow, tmp_path: Path, name: str
) -> None:
    sample = make_python(tmp_path, name)
    config = sample.folder / "config.pbtxt"
    config.write_text(config.read_text().replace(": ", ":\u00a0", 1))
    says = "does not parse in line 1, column 6: a no-break space"
    refused(target, triton, name, says, model_uri=str(sample.folder))
    refused_when_published(mlflow, name, sample.folder, says)


# ---- what somebody loaded over a deployment ------------------------------------------------------


def load_over(triton: Triton, name: str, **fields: Any) -> None:
    """As tools do that try configurations: from what the server answers, deploy id and all."""
    config = json.dumps({**triton.model_config(name), **fields})
    status, said = triton.call(
        f"v2/repository/models/{name}/load", {"parameters": {"config": config}}
    )
    assert status == 200, said


@pytest.fixture(params=["http", "grpc"])
def either(triton: Triton, request: pytest.FixtureRequest) -> Target:
    urls = {"http": triton.url, "grpc": f"grpc://{triton.grpc_url}"}
    return replace(target_of(triton, timeout=20), servers=(urls[request.param],))


OVER = "another configuration was loaded over the deployed one"


@pytest.mark.parametrize(
    "over",
    [
        {"max_batch_size": 2},
        {"instance_group": [{"kind": "KIND_CPU", "count": 2}]},
        {"metric_tags": {"who": "me"}},
    ],
    ids=["batch size", "instances", "tags"],
)
def test_a_configuration_loaded_over_the_deployed_one_is_put_right(
    either: Target, triton: Triton, tmp_path: Path, name: str, over: dict[str, Any]
) -> None:
    sample = make_python(tmp_path, name)

    def deliver(check: bool = False) -> Result:
        return deliver_model(either, name, check, model_uri=str(sample.folder))

    assert deliver().changed
    assert drift_of(either, name) == []
    deployed = triton.model_config(name)
    load_over(triton, name, **over)
    (said,) = drift_of(either, name)
    assert "serves another configuration, which was loaded over the deployed one" in said

    foreseen = deliver(check=True)
    assert foreseen.changed
    assert foreseen.to_dict()["diff"]["before"].count("another configuration is served") == 1
    done = deliver()
    assert done.error is None
    assert done.to_dict()["actions"] == foreseen.to_dict()["actions"]
    assert any(OVER in action for action in done.to_dict()["actions"])
    assert triton.model_config(name) == deployed
    assert drift_of(either, name) == []
    assert not deliver().changed


def test_what_is_loaded_over_goes_with_a_change_in_place_too(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    sample = make_python(tmp_path, name)
    deploy_model(target, name, model_uri=str(sample.folder))
    load_over(triton, name, max_batch_size=2)
    group = {"instance_group": [{"kind": "KIND_CPU", "count": 2}]}
    deploy_model(target, name, model_uri=str(sample.folder), config=group)
    config = triton.model_config(name)
    assert (config["max_batch_size"], config["instance_group"][0]["count"]) == (8, 2)
    assert drift_of(target, name) == []


def test_what_triton_applies_in_place_is_no_drift(
    target: Target, triton: Triton, mlflow: MLflow, tmp_path: Path, name: str
) -> None:
    sample = make_python(tmp_path, name)
    make_python(tmp_path, name, version=2, identity=2)
    changes: list[dict[str, Any]] = [
        {},
        {"version_policy": {"all": {}}},
        {"version_policy": {"latest": {"num_versions": 2}}},
        {"instance_group": [{"kind": "KIND_CPU", "count": 2}]},
        {},
    ]
    for config in changes:
        deploy_model(target, name, model_uri=str(sample.folder), config=config or None)
        assert drift_of(target, name) == []
        again = deploy_model(target, name, model_uri=str(sample.folder), config=config or None)
        assert not again.changed


def test_another_release_of_the_server_is_no_drift(
    target: Target, triton: Triton, tmp_path: Path, name: str
) -> None:
    sample = make_python(tmp_path, name)
    deploy_model(target, name, model_uri=str(sample.folder))
    path = Path(f"{triton.repository}.mlops-triton", "records", f"{name}.json")
    record = json.loads(path.read_text())
    assert record["served"][triton.url]["answers"] == triton.call("v2")[1]["version"]
    record["served"][triton.url]["answers"] = "2.50.0"
    path.write_text(json.dumps(record))
    load_over(triton, name, max_batch_size=2)
    assert drift_of(target, name) == []
    assert not deploy_model(target, name, model_uri=str(sample.folder)).changed
