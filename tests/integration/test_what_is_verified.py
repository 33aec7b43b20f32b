# SPDX-License-Identifier: Apache-2.0
"""Whoever can write where artifacts lie gets nothing deployed that was not published: what the
policy judges, what is compared and what is recorded are one manifest, on a real MLflow and a real
Triton.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.disk import hash_file
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.manifest import (
    DIGEST_TAG,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.published import (
    SCHEMA_TAG,
    PublishedManifest,
    read_published,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.effects import observe
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration.report import (
    Result,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.policy import Policy
from ansible_collections.mlops.triton.plugins.module_utils._delivery.registry.registry import (
    Registry,
)
from support.deliveries import artifact_folder, deliver_model, publish_model, target_of
from support.models import Sample, make_onnx, xgboost_document
from support.modules import run_module
from support.servers import MLflow, Triton

DEPLOYED = "network"
EVIL = (9.0, 9.0)
EXAMPLE = {"x": [[1.0, 2.0, 3.0]]}


@dataclass
class Attack:
    """Version 1 of a model is deployed; the files of version 2 are in somebody else's hands."""

    name: str
    triton: Triton
    mlflow: MLflow
    good: Sample
    files: Path
    """Where the files of version 2 lie in the registry's store."""
    base: Path

    @property
    def registry(self) -> Registry:
        return Registry(self.mlflow.url, 60)

    def deliver(
        self, uri: str | None = None, *, check: bool = False, policy: bool = True, **options: Any
    ) -> Result:
        target = target_of(self.triton, self.mlflow, policy=Policy(require_digest=policy))
        wanted = {"model_uri": uri or f"models:/{self.name}/2", **options}
        return deliver_model(target, DEPLOYED, check, **wanted)

    def refused(self, *words: str, uri: str | None = None, **options: Any) -> str:
        """Says all of the words, in check mode too, and version 1 answers as before."""
        said = ""
        for check in (True, False):
            result = self.deliver(uri, check=check, **options)
            said = str(result.error)
            assert result.error is not None and not result.changed, (check, said)
            assert all(word in said for word in words), said
            self.answers(self.good)
        return said

    def answers(self, sample: Sample) -> None:
        status, said = self.triton.infer(DEPLOYED, sample.request())
        assert status == 200 and sample.differences(said) == [], said

    def write(self, path: str, data: bytes | str) -> Path:
        place = self.files / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data.encode() if isinstance(data, str) else data)
        return place

    def flip(self, path: str) -> None:
        """Another byte, and as many as before."""
        place = self.files / path
        data = bytearray(place.read_bytes())
        data[len(data) // 2] ^= 1
        place.write_bytes(bytes(data))

    def list_anew(self) -> str:
        """Write a manifest of what lies there now; returns its digest."""
        entries = [
            FileEntry(str(path.relative_to(self.files)), path.stat().st_size, hash_file(str(path)))
            for path in self.files.rglob("*")
            if path.is_file() and path.name != MANIFEST_NAME
        ]
        manifest = PublishedManifest.of(entries)
        self.write(MANIFEST_NAME, manifest.to_bytes())
        return manifest.digest

    def vouch(self, digest: str) -> None:
        self.registry.set_version_tag(self.name, 2, DIGEST_TAG, digest)

    def swap_flavor(self) -> None:
        """MLmodel says that the model is another file, which is laid beside it."""
        evil = make_onnx(self.base / "evil", "evil", bias=EVIL)
        self.write("evil.onnx", (evil.folder / "1/model.onnx").read_bytes())
        self.write("MLmodel", json.dumps({"flavors": {"onnx": {"data": "evil.onnx"}}}))


@pytest.fixture
def attack(
    request: pytest.FixtureRequest, triton: Triton, mlflow: MLflow, tmp_path: Path
) -> Iterator[Attack]:
    name = "".join(char if char.isalnum() else "_" for char in request.node.name)
    registry = Registry(mlflow.url, 60)
    good = make_onnx(tmp_path / "1", "network")
    publish_model(registry, name, good.folder, input_example=EXAMPLE)
    new = make_onnx(tmp_path / "2", "network", bias=(1.0, 1.0))
    _plan, second = publish_model(registry, name, new.folder, input_example=EXAMPLE)
    made = Attack(name, triton, mlflow, good, artifact_folder(mlflow, second), tmp_path)
    first = made.deliver(f"models:/{name}/1")
    assert first.error is None, str(first.error)
    yield made
    deliver_model(target_of(triton), DEPLOYED, state="absent")


def publish_again(attack: Attack) -> None:
    """What a refusal says to do: the same content becomes version 3, which is deployed."""
    options = {
        "name": attack.name,
        "path": str(attack.base / "2" / "network"),
        "input_example": EXAMPLE,
        "tracking_uri": attack.mlflow.url,
    }
    for check in (True, False):
        done = run_module("mlflow_publish", options, check=check)
        assert not done["failed"] and done["changed"], done
        assert (done["model"]["digest"] is None) == check
    assert done["model"]["version"] == 3 and not run_module("mlflow_publish", options)["changed"]
    result = attack.deliver(f"models:/{attack.name}/3")
    assert result.error is None, str(result.error)


OTHERS = "the artifact is not what was published"


def test_what_was_published_is_deployed(attack: Attack) -> None:
    """And its record names the manifest that was judged and compared."""
    assert attack.deliver().error is None
    tags = attack.registry.model_info(attack.name).versions[0].tags
    manifest = read_published((attack.files / MANIFEST_NAME).read_bytes())
    assert [entry.path for entry in manifest.files] == [
        "MLmodel",
        "input_example.json",
        "network/1/model.onnx",
        "network/config.pbtxt",
        "serving_input_example.json",
    ]
    assert (tags[DIGEST_TAG], tags[SCHEMA_TAG]) == (manifest.digest, "2")
    state = attack.triton.repository.parent / f"{attack.triton.repository.name}.mlops-triton"
    record = json.loads((state / "records" / f"{DEPLOYED}.json").read_text())
    assert (record["publisher_digest"], record["publisher_schema"], record["tagged_digest"]) == (
        manifest.digest,
        2,
        manifest.digest,
    )
    assert attack.deliver().changed is False


def test_a_flavor_that_nobody_published_is_refused(attack: Attack) -> None:
    attack.swap_flavor()
    for policy in (True, False):
        attack.refused(OTHERS, "MLmodel", policy=policy)


def test_a_changed_byte_that_decides_what_is_served_is_refused_before_a_download(
    attack: Attack,
) -> None:
    for path in ("MLmodel", "serving_input_example.json", "network/config.pbtxt"):
        attack.flip(path)
        for policy in (True, False):
            attack.refused(OTHERS, f"{path} has sha256", "othing was changed", policy=policy)
        attack.flip(path)


def noting(kinds: set[str]) -> Callable[[str, str, str], None]:
    """What is told of each effect, by its kind."""

    def note(_moment: str, kind: str, _subject: str) -> None:
        kinds.add(kind)

    return note


def test_a_changed_byte_of_the_model_is_refused_before_the_swap(attack: Attack) -> None:
    attack.flip("network/1/model.onnx")
    for policy in (True, False):
        done: set[str] = set()

        with observe(noting(done)):
            result = attack.deliver(policy=policy)
        assert f"{OTHERS}: network/1/model.onnx has sha256" in str(result.error)
        assert not result.changed and "download" in done
        assert not {"load", "unload", "exchange", "rename"} & done
        attack.answers(attack.good)


def test_files_that_are_gone_or_added_are_refused(attack: Attack) -> None:
    for path in ("network/1/more.bin", "network/1/triton_python_backend_stub", "network/2/x"):
        added = attack.write(path, "x")
        for policy in (True, False):
            attack.refused(OTHERS, f"{path} is not in triton-manifest.json", policy=policy)
        added.unlink()
    (attack.files / "network/1/model.onnx").unlink()
    for policy in (True, False):
        attack.refused(OTHERS, "network/1/model.onnx is missing", policy=policy)


def test_what_lies_beside_and_is_not_used_does_not_matter(attack: Attack) -> None:
    """MLflow's clients add such files."""
    attack.write("registered_model_meta", "model_name: network\n")
    attack.write("metadata/MLmodel", "{}")
    result = attack.deliver()
    assert result.error is None, str(result.error)


def test_a_manifest_that_was_rewritten_with_the_files_is_refused_by_the_tag(
    attack: Attack,
) -> None:
    attack.swap_flavor()
    attack.list_anew()
    attack.refused("triton.digest", "names another manifest", "require_digest")
    # What the tag does not vouch for is not vouched for by another name of the same files.
    model_id = attack.files.parent.name
    uri = f"models:/{model_id}"
    attack.refused("no tag triton.digest", "models:/<name>/<version>", uri=uri)
    attack.refused("no tag triton.digest", uri=str(attack.files))
    publish_again(attack)


def test_a_manifest_that_was_removed_is_missed(attack: Attack) -> None:
    (attack.files / MANIFEST_NAME).unlink()
    attack.refused("it has no manifest of its publisher", "publish it with mlflow_publish")
    publish_again(attack)


def test_a_tag_that_was_removed_vouches_for_nothing(attack: Attack) -> None:
    attack.registry.client.delete_model_version_tag(attack.name, "2", DIGEST_TAG)
    attack.refused("no tag triton.digest", "name the version that mlflow_publish made")
    publish_again(attack)


def test_a_manifest_that_cannot_be_read_is_no_manifest(attack: Attack) -> None:
    leaves = {"path": "../x", "size": 1, "sha256": "0" * 64}
    for text in (
        "",
        "[]",
        json.dumps({"schema": 3, "files": [], "folders": []}),
        json.dumps({"schema": 2, "files": [leaves], "folders": []}),
    ):
        attack.write(MANIFEST_NAME, text)
        for policy in (True, False):
            attack.refused("its manifest triton-manifest.json cannot be read", policy=policy)


# -- other flavors ---------------------------------------------------------------------------------

FLAVORS: dict[str, tuple[dict[str, Any], str]] = {
    "onnx": ({"onnx": {"data": "model.onnx"}}, "model.onnx"),
    "xgboost": ({"xgboost": {"data": "model.json"}}, "model.json"),
    "lightgbm": ({"lightgbm": {"data": "model.lgb"}}, "model.lgb"),
    "sklearn": ({"sklearn": {"pickled_model": "model.skops"}}, "model.skops"),
    "pytorch": ({"pytorch": {"model_data": "data"}}, "data/model.pth"),
}
SIGNATURE = {
    side: json.dumps(
        [{"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]
    )
    for side in ("inputs", "outputs")
}


def log_as(attack: Attack, flavor: str) -> str:
    """Version 2 becomes what MLflow logs of another framework, with a manifest; returns the model
    file's path.
    """
    flavors, path = FLAVORS[flavor]
    network = (attack.good.folder / "1/model.onnx").read_bytes()
    shutil.rmtree(attack.files)
    data = {"onnx": network, "xgboost": json.dumps(xgboost_document()).encode()}
    attack.write(path, data.get(flavor, b"no model, which is found out when it is here"))
    attack.write("requirements.txt", "numpy\n")
    attack.write("MLmodel", json.dumps({"flavors": flavors, "signature": SIGNATURE}))
    attack.vouch(attack.list_anew())
    return path


@pytest.mark.parametrize("flavor", FLAVORS)
def test_every_flavor_is_compared(attack: Attack, flavor: str) -> None:
    path = log_as(attack, flavor)
    whole = {
        one: (attack.files / one).read_bytes() for one in ("MLmodel", "requirements.txt", path)
    }
    for changed in ("MLmodel", path):
        attack.flip(changed)
        for policy in (True, False):
            result = attack.deliver(policy=policy)
            assert f"{OTHERS}: {changed} has sha256" in str(result.error), str(result.error)
            attack.answers(attack.good)
        attack.write(changed, whole[changed])
    attack.write("requirements.txt", "evil\n")
    attack.refused(OTHERS, "requirements.txt has 5 bytes instead of 6")
    attack.write("requirements.txt", whole["requirements.txt"])
    # As it was logged, it is brought here: some of these are models.
    result = attack.deliver()
    assert OTHERS not in str(result.error)
    assert (result.error is None) == (flavor in ("onnx", "xgboost")), str(result.error)


@pytest.mark.parametrize("flavor", ["onnx", "xgboost"])
def test_a_model_file_that_nobody_listed_is_refused_by_name(attack: Attack, flavor: str) -> None:
    path = log_as(attack, flavor)
    listed = read_published((attack.files / MANIFEST_NAME).read_bytes())
    manifest = PublishedManifest.of(entry for entry in listed.files if entry.path != path)
    attack.write(MANIFEST_NAME, manifest.to_bytes())
    attack.vouch(manifest.digest)
    for policy in (True, False):
        attack.refused(OTHERS, f"{path} is not in triton-manifest.json", policy=policy)


# -- versions of before ----------------------------------------------------------------------------


def publish_as_before(attack: Attack) -> None:
    """Version 2 as a former release left it: a manifest of the model folder, and no tag of its
    schema.
    """
    manifest = read_published((attack.files / MANIFEST_NAME).read_bytes())
    former = Manifest.of(
        FileEntry(entry.path.removeprefix("network/"), entry.size, entry.sha256)
        for entry in manifest.files
        if entry.path.startswith("network/")
    )
    attack.write(MANIFEST_NAME, json.dumps(former.to_dict(), indent=1) + "\n")
    attack.vouch(former.digest)
    attack.registry.client.delete_model_version_tag(attack.name, "2", SCHEMA_TAG)


def test_a_version_of_before_is_refused_and_published_again(attack: Attack) -> None:
    publish_as_before(attack)
    said = attack.refused("its manifest has schema 1", "require_digest")
    assert "publish it again with mlflow_publish (the same content becomes a version" in said
    publish_again(attack)


def test_a_version_of_before_is_compared_as_before(attack: Attack) -> None:
    publish_as_before(attack)
    attack.write("network/1/more.bin", "x")
    attack.refused(OTHERS, "network/1/more.bin is not in", policy=False)
    (attack.files / "network/1/more.bin").unlink()
    attack.flip("network/config.pbtxt")
    attack.refused(OTHERS, "network/config.pbtxt has sha256", policy=False)
    attack.flip("network/config.pbtxt")
    # Its MLmodel is not covered, what it names is.
    attack.swap_flavor()
    attack.refused(OTHERS, "evil.onnx is not in triton-manifest.json", policy=False)


def test_a_deployment_of_before_is_refused_until_it_is_published_again(attack: Attack) -> None:
    publish_as_before(attack)
    assert attack.deliver(policy=False).error is None
    for check in (True, False):
        result = attack.deliver(check=check)
        assert "it was deployed with a manifest that does not cover all of its files" in str(
            result.error
        )
    new = make_onnx(attack.base / "2", "network", bias=(1.0, 1.0))
    attack.answers(new)
    publish_model(attack.registry, attack.name, new.folder, input_example=EXAMPLE)
    result = attack.deliver(f"models:/{attack.name}/3")
    assert result.error is None, str(result.error)
    # The way back leads to what the rule refuses.
    back = attack.deliver(None, state="rolled_back", model_uri=None)
    assert "it was deployed with a manifest that does not cover all of its files" in str(back.error)
    attack.answers(new)


def test_a_deployment_that_no_tag_vouched_for_is_refused(attack: Attack) -> None:
    """Its manifest may have been rewritten with the files: a later rule asks the same."""
    attack.swap_flavor()
    attack.list_anew()
    assert attack.deliver(policy=False).error is None
    result = attack.deliver()
    assert "no tag triton.digest of a model version vouched for its manifest" in str(result.error)
    publish_again(attack)


def test_a_deployment_by_a_name_without_tags_is_deployed_by_its_version(attack: Attack) -> None:
    uri = f"models:/{attack.files.parent.name}"
    assert attack.deliver(uri, policy=False).error is None
    said = str(attack.deliver(uri).error)
    assert "deploy the version that mlflow_publish made, as models:/<name>/<version>" in said
    for _time in range(2):
        result = attack.deliver()
        assert result.error is None, str(result.error)
    assert not result.changed


def test_versions_that_stay_beside_a_new_one_are_judged_too(attack: Attack) -> None:
    first = {"serve_versions": 2, "version_folders": "registry"}
    (attack.files / MANIFEST_NAME).unlink()
    assert attack.deliver(policy=False, **first).error is None
    third = make_onnx(attack.base / "3", "network", bias=(3.0, 3.0))
    publish_model(attack.registry, attack.name, third.folder, input_example=EXAMPLE)
    uri = f"models:/{attack.name}/3"
    for check in (True, False):
        result = attack.deliver(uri, check=check, **first)
        assert "of version 2, which stays beside it: it was deployed without a manifest" in str(
            result.error
        )
        assert str(result.error).count("serve_versions: 1 leaves that version out") == 1
    # As it says.
    result = attack.deliver(uri, **{**first, "serve_versions": 1})
    assert result.error is None, str(result.error)
    attack.answers(third)
    assert attack.deliver(f"models:/{attack.name}/1", **first).error is None
    attack.answers(attack.good)


def test_files_that_were_there_before_are_not_vouched_for_by_a_manifest_of_today(
    attack: Attack,
) -> None:
    """Somebody's files were deployed as version 2 while there was no rule, and put back."""
    versions = {"serve_versions": 2, "version_folders": "registry"}
    evil = make_onnx(attack.base / "evil", "evil", bias=EVIL)
    model = attack.files / "network/1/model.onnx"
    published, listed = model.read_bytes(), (attack.files / MANIFEST_NAME).read_bytes()
    attack.write("network/1/model.onnx", (evil.folder / "1/model.onnx").read_bytes())
    attack.list_anew()
    assert attack.deliver(policy=False, **versions).error is None
    third = make_onnx(attack.base / "3", "network", bias=(3.0, 3.0))
    publish_model(attack.registry, attack.name, third.folder, input_example=EXAMPLE)
    assert attack.deliver(f"models:/{attack.name}/3", policy=False, **versions).error is None
    attack.write("network/1/model.onnx", published)
    attack.write(MANIFEST_NAME, listed)
    result = attack.deliver(**versions)
    assert result.error is None, str(result.error)
    attack.answers(make_onnx(attack.base / "same", "network", bias=(1.0, 1.0)))


def test_files_that_are_swapped_between_plan_and_download_are_refused(attack: Attack) -> None:
    """With their manifest, too: what was planned is what is compared."""
    swapped: list[str] = []

    def swap(_moment: str, kind: str, subject: str) -> None:
        if not swapped and kind == "mkdir" and subject.endswith("/model"):
            swapped.append(subject)
            evil = make_onnx(attack.base / "evil", "evil", bias=EVIL)
            attack.write("network/1/model.onnx", (evil.folder / "1/model.onnx").read_bytes())
            attack.list_anew()

    with observe(swap):
        result = attack.deliver(policy=False)
    assert swapped and f"{OTHERS}: network/1/model.onnx has sha256" in str(result.error)
    attack.answers(attack.good)


def test_settings_that_are_swapped_after_a_rule_judged_them_are_refused(
    triton: Triton, tmp_path: Path
) -> None:
    """Also where no manifest says what they were."""
    (tmp_path / "chat" / "1").mkdir(parents=True)
    (tmp_path / "chat" / "config.pbtxt").write_text(
        'backend: "vllm"\ninstance_group { kind: KIND_MODEL }\n'
    )
    settings = tmp_path / "chat/1/model.json"
    good, evil = '{"model": "some/model"}', '{"worker_cls": "evil.W"}'
    settings.write_text(good.ljust(30))
    target = target_of(triton, policy=Policy(allowed_backends=("vllm",)))

    def swap(_moment: str, kind: str, subject: str) -> None:
        if kind == "mkdir" and subject.endswith("/model"):
            settings.write_text(evil.ljust(30))

    with observe(swap):
        result = deliver_model(target, "chat", model_uri=str(tmp_path / "chat"))
    assert settings.read_text() == evil.ljust(30)
    assert "1/model.json is not what it was when a rule judged it" in str(result.error)
    assert not result.changed and not (triton.repository / "chat").exists()
    # The remedy: it is judged anew.
    result = deliver_model(target, "chat", model_uri=str(tmp_path / "chat"))
    assert "1/model.json has 'worker_cls'" in str(result.error)
