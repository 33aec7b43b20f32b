# SPDX-License-Identifier: Apache-2.0
"""What must hold after each operation. Each failed assertion is a sentence that says what was
expected and what was found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.record import Record
from chaos.expectation import Deployment, Model
from chaos.place import Place, Served, identity_of
from support.servers import Triton

_MUST_NOT_BE_SAID = ("Traceback", ";.", "..", "defect of mlops.triton")


def words(result: Mapping[str, Any]) -> None:
    """Sentences are for people, and end once."""
    said = [str(result.get("msg") or ""), str(result.get("left_in_place") or "")]
    for text in [*said, *result.get("warnings", ())]:
        for bad in _MUST_NOT_BE_SAID:
            assert bad not in text, f"a message has {bad!r}: {text}"


def wanted_of(name: str, deployment: Deployment | None, loaded: bool) -> Served | None:
    """What each server has to serve."""
    if deployment is None or not loaded:
        return None
    ready = {number: identity_of(name, version) for number, version in deployment.ready.items()}
    return Served(dict(sorted(ready.items())), deployment.batch)


def served_everywhere(
    place: Place, name: str, wanted: Served | None, when: str, servers: list[Triton] | None = None
) -> None:
    """Identities, ready versions and configuration, on each server."""
    for server in servers or place.servers:
        found = place.served(server, name)
        assert found == wanted, (
            f"{when}: {name} should be served as {wanted} and is served as {found} by server"
            f" {place.servers.index(server)}"
        )


def served_among(place: Place, name: str, allowed: set[int], when: str) -> None:
    """Where something disturbed the servers: nothing, or what was there before or is there now."""
    for server in place.servers:
        found = place.served(server, name)
        for identity in found.identities.values() if found else ():
            assert identity in allowed, (
                f"{when}: {name} may answer {sorted(allowed)} and answers {identity} on server"
                f" {place.servers.index(server)}"
            )


def agreement(place: Place, name: str, deployment: Deployment | None, loaded: bool) -> None:
    """Record, files and what is served have the same deploy id, and the files are the deployed."""
    record, files = place.bench.record(name), place.files(name)
    if deployment is None:
        assert record is None, f"{name} should have no record and has one of {record}"
        assert not files, f"{name} should have no files and has {sorted(files)}"
        return
    assert record is not None, f"{name} should have a record of {deployment} and has none"
    wanted = "loaded" if loaded else "unloaded"
    assert record.wanted == wanted, f"the record should say {wanted} and says {record.wanted}"
    on_disk = config_pbtxt.deploy_id_of(files.get("config.pbtxt", b""))
    assert on_disk == record.deploy_id, (
        f"config.pbtxt should have deploy id {record.deploy_id} and has {on_disk}"
    )
    there = {path: len(data) for path, data in files.items()}
    for own in ("config.pbtxt", "mlflow-meta.json"):
        there.pop(own, None)
    listed = {entry["path"]: entry["size"] for entry in record.manifest["files"]}
    assert there == listed, f"files and sizes should be {listed} and are {there}"
    _model_files(name, deployment, files)
    for server in place.servers if loaded else ():
        parameters = server.model_config(name).get("parameters", {})
        served = parameters.get(config_pbtxt.DEPLOY_ID_KEY, {}).get("string_value")
        assert served == record.deploy_id, (
            f"deploy id {record.deploy_id} should be served and {served} is"
        )


def _model_files(name: str, deployment: Deployment, files: Mapping[str, bytes]) -> None:
    for folder in deployment.folders:
        version = folder if deployment.registered else deployment.version
        line = f"IDENTITY = {identity_of(name, version)}\n".encode()
        assert line in files[f"{folder}/model.py"], (
            f"{name}/{folder}/model.py should be that of version {version} and is not"
        )


def truth(place: Place, name: str, result: Mapping[str, Any]) -> None:
    """What a failure says of what is in place and served is so."""
    left = str(result.get("left_in_place") or "")
    record: Record | None = place.bench.record(name)
    for uri in re.findall(r"(\S+) is in place as before", left):
        assert record is not None and uri == record.pinned_uri, (
            f"it says that {uri} is in place, and the record has"
            f" {record.pinned_uri if record else None}"
        )
    for server in place.servers:
        found = place.served(server, name)
        ready = set(found.identities) if found else set()
        said = {
            int(number)
            for numbers in re.findall(rf"{re.escape(server.url)} serves version ([\d, ]+)", left)
            for number in numbers.replace(",", " ").split()
        }
        if said or "no server serves it" in left:
            assert said == ready, (
                f"it says that server {place.servers.index(server)} serves versions {said or None}"
                f" of {name}, and it serves {ready or None}: {left}"
            )


def left_behind(place: Place, models: Mapping[str, Model]) -> None:
    """No staging, journal, lock or half-written file, but for models that were interrupted."""
    there = tuple(name for name, model in models.items() if model.now or model.foreign)
    unsure = [name for name, model in models.items() if model.interrupted]
    found = [
        entry
        for entry in place.bench.left_behind(models_there=there)
        if not any(name in entry for name in unsure)
    ]
    assert not found, f"nothing should be left behind, and there is {found}"
