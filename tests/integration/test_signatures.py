# SPDX-License-Identifier: Apache-2.0
"""What is deployed is what a named person signed: publications that sign, and a place that asks for
signatures, on a real MLflow and a real Triton.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.effects import observe
from mlflow import MlflowClient
from mlflow.deployments import get_deploy_client
from support.deliveries import artifact_folder
from support.models import Sample, make_ensemble, make_forest, make_onnx, make_python
from support.modules import publish_by_module, run_module
from support.servers import ROOT, MLflow, Triton
from support.signers import Key, SigningAuthority, sign_with_command

pytestmark = pytest.mark.takes(40)

RELEASE = "release@example.com"
PASSWORD = "a long and secret password"


@dataclass
class Place:
    """A registry and a server that asks for signatures of one key."""

    folder: Path
    mlflow: MLflow
    triton: Triton
    key: Key

    @property
    def target(self) -> dict[str, Any]:
        return {
            "tracking_uri": self.mlflow.url,
            "triton_url": self.triton.url.removeprefix("http://"),
            "model_repository": str(self.triton.repository),
        }

    def sample(self, name: str, bias: float = 0.5) -> Sample:
        return make_onnx(self.folder / f"{name}-{bias}", name, bias=(bias, bias))

    def publish(self, name: str, path: Path | None = None, **options: Any) -> dict[str, Any]:
        return publish_by_module(self.mlflow, name, path or self.sample(name).folder, **options)

    def files(self, published: dict[str, Any]) -> Path:
        """Where a store keeps the files of a version."""

        class Version:
            artifact_uri = published["model"]["artifact_uri"]

        return artifact_folder(self.mlflow, Version())

    def deploy(
        self, name: str, uri: str | None = None, check: bool = False, **options: Any
    ) -> dict[str, Any]:
        given = {"name": name, "model_uri": uri or f"models:/{name}/1", **self.target}
        rule = {"require_signature": {"public_keys": [self.key.public]}}
        return run_module("triton_model", {**given, **rule, **options}, check=check)

    def refused(self, name: str, uri: str | None = None, **options: Any) -> str:
        """Why a deployment is refused: in check mode as in a real run, which changes nothing."""
        before = self.there()
        effects: list[str] = []

        def note(_moment: str, kind: str, _subject: str) -> None:
            effects.append(kind)

        with observe(note):
            checked = self.deploy(name, uri, check=True, **options)
            real = self.deploy(name, uri, **options)
        assert checked["failed"] and real["failed"], (checked, real)
        assert checked["msg"] == real["msg"]
        assert self.there() == before
        assert effects == []
        return str(real["msg"])

    def there(self) -> dict[str, Any]:
        root = self.triton.repository
        files = {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and not path.name.endswith(".lock")
        }
        return {"files": files, "served": self.triton.index()}

    def info(self, name: str, **options: Any) -> dict[str, Any]:
        given = {key: self.target[key] for key in ("triton_url", "model_repository")}
        result = run_module("triton_model_info", {**given, "names": [name], **options})
        assert not result["failed"], result
        (entry,) = result["models"]
        return dict(entry)

    def forget(self, name: str) -> None:
        gone = run_module("triton_model", {"name": name, "state": "absent", **self.target})
        assert not gone["failed"], gone

    def by_plugin(self, name: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the plugin's commands get and list say of a model, with a profile."""
        file = self.folder / "profiles.yml"
        file.write_text(json.dumps({"place": {**self.target, **options}}))
        with mock.patch.dict(os.environ, {"MLOPS_TRITON_PROFILES": str(file)}):
            client = get_deploy_client("triton:/place")
            got = client.get_deployment(name)
            listed = next(one for one in client.list_deployments() if one["name"] == name)
        return got, listed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, mlflow: MLflow, triton: Triton) -> Place:
    folder = tmp_path_factory.mktemp("signatures")
    return Place(folder, mlflow, triton, Key(folder, "release"))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "".join(char if char.isalnum() else "_" for char in request.node.name)[-60:]


def rules(key: Key) -> dict[str, Any]:
    return {"require_signature": {"public_keys": [key.public]}}


def test_what_was_signed_is_deployed_and_says_by_whom(place: Place, name: str) -> None:
    published = place.publish(name, sign={"private_key": place.key.file})
    assert published["model"]["signer"] == place.key.id
    result = place.deploy(name)
    assert result["changed"] and not result["failed"], result
    signer: dict[str, Any] = {
        "key": place.key.id,
        "identities": [],
        "authority": None,
        "issuer": None,
        "chain": [],
    }
    assert result["model"]["signed_by"] == signer
    assert not place.deploy(name)["changed"]
    entry = place.info(name, **rules(place.key))
    assert (entry["signed_by"], entry["trusted"], entry["drift"]) == (signer, True, [])
    assert place.info(name)["trusted"] is None
    for said in place.by_plugin(name, **rules(place.key)):
        assert (said["signed_by"], said["trusted"]) == (signer, True)


def test_the_same_content_is_signed_once(place: Place, name: str) -> None:
    sample = place.sample(name)
    unsigned = place.publish(name, sample.folder)
    assert unsigned["model"]["signer"] is None
    options = {"sign": {"private_key": place.key.file}}
    given = {"name": name, "path": str(sample.folder), "tracking_uri": place.mlflow.url, **options}
    check = run_module("mlflow_publish", given, check=True, diff=True)
    first = run_module("mlflow_publish", given, diff=True)
    again = run_module("mlflow_publish", given, diff=True)
    assert [check["changed"], first["changed"], again["changed"]] == [True, True, False]
    assert [first["model"]["version"], again["model"]["version"]] == [2, 2]
    assert check["diff"] == first["diff"]
    assert any(f"key {place.key.id[:16]}" in action for action in first["actions"])
    assert place.key.id in json.dumps(first["diff"]["after"])
    other = Key(place.folder, "second-signer")
    assert place.publish(name, sample.folder, sign={"private_key": other.file})["changed"]
    assert not place.publish(name, sample.folder)["changed"]


def test_what_nobody_trusted_signed_is_refused(place: Place, name: str) -> None:
    place.publish(name)
    assert "it has no signature (model.sig)" in place.refused(name)
    stranger = Key(place.folder, "stranger")
    place.publish(name, sign={"private_key": stranger.file})
    said = place.refused(name, f"models:/{name}/2")
    assert stranger.id[:16] in said and "require_signature.public_keys" in said
    revoked = {"require_signature": None, "revoked_keys": [stranger.id]}
    assert "which revoked_keys has" in place.refused(name, f"models:/{name}/2", **revoked)
    # The remedies that the two sentences name.
    place.publish(name, sign={"private_key": place.key.file})
    assert not place.deploy(name, f"models:/{name}/3")["failed"]
    listed = {"public_keys": [place.key.public, stranger.public]}
    result = place.deploy(name, f"models:/{name}/2", require_signature=listed)
    assert result["model"]["signed_by"]["key"] == stranger.id


def _change_a_byte(files: Path, name: str) -> None:
    file = files / name / "1/model.onnx"
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(bytes(body))


def _add_a_file(files: Path, name: str) -> None:
    (files / name / "1/evil.py").write_text("import os\n")


def _swap_the_flavor(files: Path, _name: str) -> None:
    mlmodel = files / "MLmodel"
    mlmodel.write_text(mlmodel.read_text().replace("triton:", "onnx:"))


def _forge_all(files: Path, name: str) -> None:
    """Manifest and signature of somebody who may write artifacts and has no key."""
    _change_a_byte(files, name)
    (files / "triton-manifest.json").unlink()
    (files / "model.sig").unlink()
    stranger = Key(files.parent, "forger")
    sign_with_command(files, "--private_key", stranger.file)


def _take_the_signature_away(files: Path, _name: str) -> None:
    (files / "model.sig").unlink()


def _take_the_manifest_away(files: Path, name: str) -> None:
    _change_a_byte(files, name)
    (files / "triton-manifest.json").unlink()


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (_change_a_byte, "1/model.onnx has sha256"),
        (_add_a_file, "1/evil.py is not covered by model.sig"),
        (_swap_the_flavor, "MLmodel has"),
        (_forge_all, "which is not in require_signature.public_keys"),
        (_take_the_signature_away, "it has no signature (model.sig)"),
        (_take_the_manifest_away, "triton-manifest.json is missing"),
    ],
    ids=lambda one: one.__name__.strip("_") if callable(one) else "",
)
def test_an_artifact_that_somebody_changed_is_not_deployed(
    place: Place, name: str, attack: Callable[[Path, str], None], words: str
) -> None:
    published = place.publish(name, sign={"private_key": place.key.file})
    attack(place.files(published), name)
    result = place.deploy(name)
    assert result["failed"], result
    assert words in result["msg"]
    assert not (place.triton.repository / name).exists()
    assert all(row["name"] != name for row in place.triton.index())


@pytest.mark.parametrize("attack", [_take_the_signature_away, _forge_all])
def test_signing_again_is_a_way_out(
    place: Place, name: str, attack: Callable[[Path, str], None]
) -> None:
    sample = place.sample(name)
    sign = {"private_key": place.key.file}
    published = place.publish(name, sample.folder, sign=sign)
    attack(place.files(published), name)
    place.refused(name)
    again = place.publish(name, sample.folder, sign=sign)
    assert again["changed"] and again["model"]["version"] == 2
    assert not place.publish(name, sample.folder, sign=sign)["changed"]
    assert not place.deploy(name, f"models:/{name}/2")["failed"]


def test_a_version_whose_file_was_changed_is_deleted_and_published_again(
    place: Place, name: str
) -> None:
    sample = place.sample(name)
    sign = {"private_key": place.key.file}
    published = place.publish(name, sample.folder, sign=sign)
    _change_a_byte(place.files(published), name)
    assert place.deploy(name)["failed"]
    assert not place.publish(name, sample.folder, sign=sign, check_files=True)["changed"]
    MlflowClient(place.mlflow.url).delete_model_version(name, "1")
    assert place.publish(name, sample.folder, sign=sign)["model"]["version"] == 2
    assert not place.deploy(name, f"models:/{name}/2")["failed"]


def test_a_tag_of_another_content_makes_no_version_of_it(place: Place, name: str) -> None:
    """Else an alias would go to an older version, which is signed, when a new one is published."""
    sign = {"private_key": place.key.file}
    place.publish(name, sign=sign)
    new = place.sample(name, 0.25).folder
    place.publish(f"{name}_elsewhere", new, sign=sign)
    client = MlflowClient(place.mlflow.url)
    content = client.get_model_version(f"{name}_elsewhere", "1").tags["triton.content"]
    client.set_model_version_tag(name, "1", "triton.content", content)
    published = place.publish(name, new, sign=sign, aliases=["champion"])
    assert published["changed"] and published["model"]["version"] == 2
    assert str(client.get_model_version_by_alias(name, "champion").version) == "2"
    assert not place.publish(name, new, sign=sign, aliases=["champion"])["changed"]


def test_one_signed_artifact_does_not_stand_for_another_where_the_tag_vouches(
    place: Place, name: str
) -> None:
    """A signature says nothing of names and versions; the registry does, with require_digest."""
    sign = {"private_key": place.key.file}
    old = place.publish(name, sign=sign)
    new = place.publish(name, place.sample(name, 0.25).folder, sign=sign)
    shutil.rmtree(place.files(new))
    shutil.copytree(place.files(old), place.files(new))
    said = place.refused(name, f"models:/{name}/2", require_digest=True)
    assert "names another manifest" in said
    assert not place.deploy(name, f"models:/{name}/1", require_digest=True)["failed"]


def test_a_certificate_is_trusted_by_authority_and_identity(place: Place, name: str) -> None:
    authority = SigningAuthority(place.folder / "ca", "authority")
    between = SigningAuthority(place.folder / "ca", "between", issuer=authority)
    key, certificate = between.issue("signer", RELEASE)
    sign = {"private_key": key.file, "certificate": certificate}
    place.publish(name, sign={**sign, "certificate_chain": [between.file]})
    trusted = {"ca_certificates": [authority.file], "identities": [RELEASE]}
    said = place.refused(name, require_signature={**trusted, "identities": ["ops@example.com"]})
    assert RELEASE in said
    result = place.deploy(name, require_signature=trusted)
    assert result["model"]["signed_by"]["authority"] == authority.fingerprint
    assert RELEASE in result["model"]["signed_by"]["identities"]
    authorities = [one for ca in (between, authority) for one in (ca.fingerprint, ca.key.id)]
    for revoked in (key.id, *authorities):
        entry = place.info(name, require_signature=trusted, revoked_keys=[revoked.upper()])
        assert entry["trusted"] is False
    assert place.info(name, require_signature=trusted)["trusted"] is True
    others = {**trusted, "identities": ["ops@example.com"]}
    assert place.info(name, require_signature=others)["trusted"] is False


def test_a_signature_of_the_models_folder_is_enough(place: Place, name: str) -> None:
    """As NVIDIA signs what NGC has: with the tool's own command, before anything is published."""
    folder = place.sample(name).folder
    sign_with_command(folder, "--private_key", place.key.file)
    published = place.publish(name, folder)
    result = place.deploy(name)
    assert not result["failed"], result
    assert result["model"]["signed_by"]["key"] == place.key.id
    assert not (place.triton.repository / name / "model.sig").exists()
    files = place.files(published)
    place.forget(name)
    (files / name / "1/labels.txt").write_text("a")
    assert "1/labels.txt is not covered by model.sig" in place.refused(name)


def test_what_lies_beside_a_signed_folder_is_not_used(place: Place, name: str) -> None:
    """Where nobody made a manifest either, MLmodel is anybody's: it says which folder, no more."""
    folder = place.sample(name).folder
    sign_with_command(folder, "--private_key", place.key.file)
    artifact = place.folder / f"artifact-{name}"
    shutil.copytree(place.files(place.publish(name, folder)), artifact)
    (artifact / "triton-manifest.json").unlink()
    mlmodel = artifact / "MLmodel"
    said = mlmodel.read_text()
    (artifact / "input_example.json").write_text("[[not JSON")
    mlmodel.write_text(said.replace("triton:", "onnx:"))
    assert "enough for flavor triton and not for onnx" in place.refused(name, artifact.as_uri())
    shutil.copytree(artifact / name, artifact / "other")
    mlmodel.write_text(said.replace(f"data: {name}", "data: other"))
    assert "it has 2 signatures" in place.refused(name, artifact.as_uri())
    (artifact / "other/model.sig").unlink()
    assert place.refused(name, artifact.as_uri())
    mlmodel.write_text(said)
    result = place.deploy(name, artifact.as_uri())
    assert not result["failed"], result
    assert "example" not in str(result.get("warnings"))


def test_a_folder_and_an_ensemble_that_the_tool_signed_are_deployed(
    place: Place, name: str
) -> None:
    member = make_python(place.folder / "members", f"{name}_member")
    ensemble = make_ensemble(place.folder / "ensembles", name, [member])
    for sample in (member, ensemble):
        sign_with_command(sample.folder, "--private_key", place.key.file)
        result = place.deploy(sample.name, sample.folder.as_uri())
        assert not result["failed"], result
    config = ensemble.folder / "config.pbtxt"
    config.write_text(config.read_text() + "\n# changed\n")
    said = place.deploy(name, ensemble.folder.as_uri())
    assert said["failed"] and "config.pbtxt" in said["msg"]


def test_a_downloaded_artifact_that_the_tool_signed_is_deployed(place: Place, name: str) -> None:
    """Of any flavor, also one that is converted."""
    published = place.publish(name)
    files = place.files(published)
    (files / "registered_model_meta").write_text("model_name: x\n")  # as MLflow's client adds
    sign_with_command(files, "--private_key", place.key.file)
    (files / "registered_model_meta").unlink()
    assert not place.deploy(name)["failed"]


def test_rotation_and_revocation_judge_what_is_deployed(place: Place, name: str) -> None:
    former = Key(place.folder, "former")
    published = place.publish(name, sign={"private_key": former.file})
    old = {"public_keys": [former.public]}
    assert not place.deploy(name, require_signature=old)["failed"]
    digest = published["model"]["digest"]
    file = (place.triton.repository / name / "1/model.onnx").read_bytes()
    sha256 = hashlib.sha256(file).hexdigest()
    mlmodel = hashlib.sha256((place.files(published) / "MLmodel").read_bytes()).hexdigest()
    cases: list[tuple[dict[str, Any], str]] = [
        (rules(place.key), "require_signature.public_keys"),
        ({"require_signature": old, "revoked_keys": [former.id]}, "revoked_keys has"),
        ({"revoked_keys": [f"sha256:{former.id}"]}, "revoked_keys has"),
        ({"revoked_digests": [digest]}, "its manifest"),
        ({"revoked_digests": [sha256]}, "1/model.onnx"),
        ({"revoked_digests": [mlmodel]}, "a file that it was made of"),
    ]
    for rule, words in cases:
        entry = place.info(name, **rule)
        (said,) = [line for line in entry["drift"] if "no longer trusted" in line]
        assert said.startswith("served, and no longer trusted") and words in said
        assert entry["trusted"] is False and entry["ready"]
        given = {"require_signature": None, **rule}
        assert words in place.refused(name, **given)
        got, listed = place.by_plugin(name, **rule)
        assert got["trusted"] is listed["trusted"] is False
        assert any(words in line for line in got["drift"])
    # It may be taken off the servers, with its URI too, and does not come back to them.
    off = place.deploy(name, state="unloaded", require_signature=None, revoked_digests=[digest])
    assert not off["failed"] and off["changed"] and not place.info(name)["ready"], off
    place.refused(name, require_signature=None, revoked_digests=[digest])
    # Another version is the way out, and there is no way back to the one that is revoked.
    place.publish(name, place.sample(name, 0.25).folder, sign={"private_key": place.key.file})
    assert not place.deploy(name, f"models:/{name}/2")["failed"]
    back = {"model_uri": None, "state": "rolled_back"}
    options = {"name": name, **place.target, **rules(place.key), **back}
    went = run_module("triton_model", options)
    assert went["failed"] and "require_signature.public_keys" in went["msg"]
    options |= {"require_signature": None, "revoked_digests": [digest]}
    assert "revoked_digests has" in run_module("triton_model", options)["msg"]
    assert place.info(name, **rules(place.key))["trusted"] is True


def test_what_was_deployed_unsigned_is_not_trusted_later(place: Place, name: str) -> None:
    place.publish(name)
    assert not place.deploy(name, require_signature=None)["failed"]
    entry = place.info(name, **rules(place.key))
    assert entry["trusted"] is False
    assert "was deployed without a signature" in "".join(entry["drift"])
    assert "it has no signature (model.sig)" in place.refused(name)
    place.publish(name, sign={"private_key": place.key.file})
    assert not place.deploy(name, f"models:/{name}/2")["failed"]
    assert place.info(name, **rules(place.key))["trusted"] is True


def test_what_was_signed_and_deployed_without_the_rule_is_asked_for_it_once(
    place: Place, name: str
) -> None:
    place.publish(name, sign={"private_key": place.key.file})
    assert place.deploy(name, require_signature=None)["model"]["signed_by"] is None
    check, asked, again = place.deploy(name, check=True), place.deploy(name), place.deploy(name)
    assert [check["changed"], asked["changed"], again["changed"]] == [True, True, False]
    assert check["actions"] == asked["actions"]
    assert "nobody had asked who signed it" in " ".join(asked["actions"])
    assert asked["model"]["signed_by"]["key"] == place.key.id
    assert not place.deploy(name, require_signature=None)["changed"]


def test_a_key_that_is_revoked_later_is_known_where_nobody_verified(
    place: Place, name: str
) -> None:
    """What the signature said of itself is in the record; of versions side by side, of each."""
    former = Key(place.folder, "unverified")
    place.publish(name, sign={"private_key": former.file})
    place.publish(name, place.sample(name, 0.25).folder, sign={"private_key": place.key.file})
    nothing = {"require_signature": None, "serve_versions": 2}
    for version in (1, 2):
        result = place.deploy(name, f"models:/{name}/{version}", **nothing)
        assert not result["failed"] and result["model"]["signed_by"] is None, result
        entry = place.info(name, revoked_keys=[former.id])
        (said,) = [line for line in entry["drift"] if "no longer trusted" in line]
        assert f"model.sig says that it is by {former.id}" in said and not entry["trusted"]
    assert place.info(name, revoked_keys=[place.key.id])["trusted"] is False
    assert place.info(name, revoked_keys=["0" * 64])["trusted"] is True
    revoked = {"require_signature": None, "revoked_keys": [former.id]}
    place.refused(name, f"models:/{name}/2", serve_versions=2, **revoked)
    assert not place.deploy(name, f"models:/{name}/2", **revoked)["failed"]
    assert place.info(name, revoked_keys=[former.id])["trusted"] is True


def test_a_version_beside_a_newer_one_is_judged_too(place: Place, name: str) -> None:
    former = Key(place.folder, "former-beside")
    both = {"public_keys": [former.public, place.key.public]}
    place.publish(name, sign={"private_key": former.file})
    place.publish(name, place.sample(name, 0.25).folder, sign={"private_key": place.key.file})
    for version in (1, 2):
        result = place.deploy(
            name, f"models:/{name}/{version}", require_signature=both, serve_versions=2
        )
        assert not result["failed"], result
    assert result["model"]["triton_versions"] == [1, 2]
    assert place.info(name, require_signature=both)["trusted"] is True
    assert place.info(name, **rules(place.key))["trusted"] is False
    assert place.info(name, revoked_keys=[former.id])["trusted"] is False
    said = place.refused(name, f"models:/{name}/2", serve_versions=2)
    assert "of version 1" in said and "serve_versions: 1 leaves that version out" in said
    alone = place.deploy(name, f"models:/{name}/2", serve_versions=1)
    assert not alone["failed"] and alone["model"]["triton_versions"] == [2], alone
    assert place.info(name, **rules(place.key))["trusted"] is True
    back = {"state": "rolled_back", "model_uri": None, "require_signature": both}
    assert place.deploy(name, **back)["model"]["triton_versions"] == [1, 2]
    place.publish(name, place.sample(name, 0.125).folder, sign={"private_key": place.key.file})
    result = place.deploy(name, f"models:/{name}/3", require_signature=both, serve_versions=2)
    assert result["model"]["triton_versions"] == [2, 3]
    assert place.info(name, **rules(place.key))["trusted"] is True


def test_revoked_bytes_are_refused_without_a_manifest(place: Place, name: str) -> None:
    """Nothing tells of them before they came; they are not put in place."""
    folder = place.sample(name).folder
    sha256 = hashlib.sha256((folder / "1/model.onnx").read_bytes()).hexdigest()
    given = {"require_signature": None, "revoked_digests": [sha256]}
    result = place.deploy(name, folder.as_uri(), **given)
    assert result["failed"] and "1/model.onnx" in result["msg"]
    assert not (place.triton.repository / name).exists()


def test_a_converted_model_is_signed_and_revoked_by_what_it_was(place: Place, name: str) -> None:
    sample = make_forest(place.folder / name, name)
    published = place.publish(name, sample.folder, sign={"private_key": place.key.file})
    assert not place.deploy(name)["failed"]
    assert place.info(name, revoked_digests=[published["model"]["digest"]])["trusted"] is False


def test_no_secret_is_in_any_output_or_record(
    place: Place, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    locked = Key(place.folder, "locked", password=PASSWORD)
    sample = place.sample(name)
    given = {"name": name, "path": str(sample.folder), "tracking_uri": place.mlflow.url}
    sign = {"private_key_env": "RELEASE_KEY", "password_env": "RELEASE_PASSWORD"}
    variables = {"RELEASE_KEY": locked.text, "RELEASE_PASSWORD": PASSWORD}
    wrong = {**variables, "RELEASE_PASSWORD": "quite another password"}
    options = {**given, "sign": sign}
    failed = run_module("mlflow_publish", options, variables=wrong, diff=True)
    assert failed["failed"] and "its password is another one" in failed["msg"]
    assert failed["left_in_place"] == "nothing was published"
    made = run_module("mlflow_publish", options, variables=variables, diff=True)
    assert made["changed"] and made["model"]["signer"] == locked.id
    plain = {"private_key": locked.file, "password": PASSWORD}
    again = run_module("mlflow_publish", {**given, "sign": plain}, diff=True)
    assert not again["changed"]
    trusted = {"public_keys": [locked.public]}
    deployed = place.deploy(name, require_signature=trusted)
    assert not deployed["failed"], deployed
    version = MlflowClient(place.mlflow.url).get_model_version(name, "1")
    state = Path(f"{place.triton.repository}.mlops-triton")
    record = (state / "records" / f"{name}.json").read_text()
    shown = "".join(capfd.readouterr())
    body = locked.text.splitlines()[2]
    for text in (*map(json.dumps, (failed, made, again, deployed)), record, str(version), shown):
        assert PASSWORD not in text and "quite another" not in text
        assert body not in text and "PRIVATE KEY" not in text


def test_a_key_that_was_given_in_place_of_its_path_is_in_no_output(place: Place, name: str) -> None:
    """The module's arguments, which Ansible shows with -vvv, among them."""
    given = {"name": name, "path": str(place.sample(name).folder), "tracking_uri": place.mlflow.url}
    text = place.key.text
    body = text.splitlines()[2]
    signs: list[dict[str, Any]] = [{"private_key": text}, {"private_key_env": text}]
    results = [run_module("mlflow_publish", {**given, "sign": sign}, diff=True) for sign in signs]
    listed = [{key: given[key] for key in ("name", "path")} | {"sign": sign} for sign in signs]
    of_all = {"models": listed, "tracking_uri": place.mlflow.url}
    results += [run_module("mlflow_publish", of_all)]
    results += [place.deploy(name, require_signature={"public_keys": [text]})]
    for result in results:
        assert result["failed"] and "invocation" in result, result
        assert body not in json.dumps(result)


def test_the_script_signs(place: Place, name: str) -> None:
    locked = Key(place.folder, "script", password=PASSWORD)
    sample = place.sample(name)
    command = [
        sys.executable,
        str(ROOT / "publish_model_to_mlflow.py"),
        *("--model_name", name, "--model_directory", str(sample.folder), "--flavor", "triton"),
        *("--sign_key", locked.file, "--sign_password_env", "SCRIPT_PASSWORD"),
    ]
    variables = {**os.environ, "MLFLOW_TRACKING_URI": place.mlflow.url}
    missing = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert missing.returncode == 1 and "SCRIPT_PASSWORD, which is not set" in missing.stderr
    variables["SCRIPT_PASSWORD"] = PASSWORD
    ran = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert PASSWORD not in ran.stdout + ran.stderr
    result = place.deploy(name, require_signature={"public_keys": [locked.public]})
    assert result["model"]["signed_by"]["key"] == locked.id
