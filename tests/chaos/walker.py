# SPDX-License-Identifier: Apache-2.0
"""What a walk does: operations and mishaps, what is known of each model after them, and that what
there is agrees with it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from chaos import checks
from chaos.expectation import (
    BY_HAND,
    FOREIGN,
    MADE_ANEW,
    Deployment,
    Expected,
    Model,
    Request,
    expect,
)
from chaos.place import (
    NAMES,
    TIMEOUT,
    Place,
    Watch,
    edit_batch,
    edit_identity,
    identity_of,
    overridden,
)
from chaos.shorten import Step

# An operation ends within its own time-out. A server that goes down meanwhile is waited for, and
# what was there before is loaded again after that.
SLACK = 2 * TIMEOUT + 10

MISHAPS = (
    "edit model.py",
    "remove model.py",
    "edit config.pbtxt",
    "add a file",
    "remove all",
    "restore files",
    "restart",
    "touch 30 days",
    "touch 4000 days",
    "touch -400 days",
    "load",
    "override",
    "unload",
)
"""What can befall a model between operations: its files change, or are brought back as they were;
servers are killed and started; times of files are set; somebody uses Triton's API, to load it with
another configuration too."""
SWITCHES = (*MISHAPS, "folders side by side", "server killed alone")
"""What can be left out (pytest --skip), so that a walk goes on past a known fault: besides mishaps,
``serve_versions`` of a model that is asked for as a folder, and the death of a server whose
backend's processes live on."""
KNOWN: frozenset[str] = frozenset()


class LeftOut(Exception):
    """A step that can do nothing here."""


def need(possible: object) -> None:
    """Leave the step out where it can do nothing.

    Preconditions of Hypothesis would have to be the same each time, and what a killed run left is
    not.
    """
    if not possible:
        raise LeftOut


class Walker:
    """What is known of each model of a place."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.models = {name: Model() for name in NAMES}
        self.originals: dict[str, dict[str, bytes]] = {name: {} for name in NAMES}
        self.steps: list[Step] = []

    # -- what happens behind the engine's back -----------------------------------------------------

    def befall(self, name: str, mishap: str) -> None:
        """One of MISHAPS, where it can happen; what it leads to is known afterwards."""
        model = self.models[name]
        if mishap == "restart":
            for number in range(len(self.place.servers)):
                self.restart(number)
        there = self.place.files(name) or mishap == "restore files"
        if mishap in KNOWN or model.interrupted or not there:
            return
        if mishap in ("load", "override", "unload"):
            self._call_triton(name, mishap)
        elif mishap == "restore files":
            self._restore_files(name)
        elif mishap.startswith("touch"):
            if not self.place.in_s3:
                self.place.touch(name, int(mishap.split()[1]))
                self._know(name, settled=False, touched=True)
        elif model.now and mishap != "restart":
            self._change_files(name, model.now, mishap)

    def _change_files(self, name: str, now: Deployment, mishap: str) -> None:
        model, files = self.models[name], self.place.files(name)
        path = f"{max(now.folders)}/model.py"
        changes: dict[str, dict[str, bytes | None]] = {
            "edit model.py": {path: edit_identity(files.get(path, b""), BY_HAND)},
            "remove model.py": {path: None},
            "edit config.pbtxt": {"config.pbtxt": edit_batch(files.get("config.pbtxt", b""))},
            "add a file": {"stray.txt": b"by hand"},
            "remove all": dict.fromkeys(files),
        }
        changed = set()
        for file, data in changes[mishap].items():
            if (mishap != "add a file" and file not in files) or files.get(file) == data:
                continue
            self.originals[name].setdefault(file, files.get(file, b""))
            changed.add(file)
            if data is None:
                self.place.remove(name, file)
            else:
                self.place.write(name, file, data)
        may = {BY_HAND} if mishap == "edit model.py" and changed else set()
        self._know(name, changed=model.changed | changed, may_answer=model.may_answer | may)
        self.check_drift(name)

    def _restore_files(self, name: str) -> None:
        """Whoever changed files brings the deployed bytes back."""
        for path, data in self.originals[name].items():
            if path == "stray.txt":
                if path in self.place.files(name):
                    self.place.remove(name, path)
            else:
                self.place.write(name, path, data)
        self.originals[name].clear()
        changed = self.models[name].changed
        if changed:
            # What was served meanwhile is served on.
            touched = self.models[name].touched or changed != {"stray.txt"}
            self._know(name, changed=frozenset(), settled=False, touched=touched)

    def _call_triton(self, name: str, what: str) -> None:
        """Somebody uses Triton's own API."""
        record, files = self.place.bench.record(name), self.place.files(name)
        # Triton waits without end for a Python model's file that is missing.
        if "config.pbtxt" not in files or not any(path.endswith("/model.py") for path in files):
            return
        server = self.place.servers[-1]
        if what == "unload":
            server.unload(name)
        elif what == "load":
            server.load(name)
        elif record and server.url in record.served and self.place.served(server, name):
            # Elsewhere the engine cannot know what the deployed configuration looks like.
            body = overridden(server.model_config(name), 3)
            server.call(f"v2/repository/models/{name}/load", body)
        self._know(name, settled=False)

    def put_foreign(self, name: str) -> None:
        """Somebody else puts a model under a name that is not deployed."""
        sample = self.place.bench.sample(FOREIGN, name)
        for path in sample.folder.rglob("*"):
            if path.is_file():
                self.place.write(name, str(path.relative_to(sample.folder)), path.read_bytes())
        self._know(name, foreign=True, may_answer=frozenset({FOREIGN}))

    # -- what an operation leads to ----------------------------------------------------------------

    def finished(self, future: Any) -> dict[str, Any]:
        begun = time.monotonic()
        try:
            answer: dict[str, Any] = future.result(SLACK)
        except TimeoutError:
            seconds = time.monotonic() - begun
            raise AssertionError(f"the operation hangs: no end after {seconds:.0f} s") from None
        return answer

    def operate(self, name: str, request: Request, run: Callable[[], dict[str, Any]]) -> None:
        """Run an operation, and check everything that must hold after it."""
        model = self.models[name]
        expected = expect(model, request)
        others = self._snapshot(name)
        with self.place.watched(name) as watch:
            begun = time.monotonic()
            answer = run()
            seconds = time.monotonic() - answer.get("up", begun)
            # A load that was begun before a server died would be waited for nearly as long.
            limit = TIMEOUT / 2 if "up" in answer else TIMEOUT
        watch.disturbed |= answer.get("disturbed", False)
        assert seconds < limit, (
            f"it should end within {limit:.0f} s, and took {seconds:.0f} s (since the server was up"
            " again, where that had died)"
        )
        if answer["code"] == -9:
            self._killed(name, request, expected)
        else:
            result = answer["result"]
            assert result is not None, f"the run ended with code {answer['code']}, saying nothing"
            checks.words(result)
            if result["failed"]:
                self._failed(name, request, expected, result, watch)
            else:
                self._succeeded(name, request, expected, result, watch)
        self._check_answers(name, request, model, watch)
        if not watch.disturbed:
            assert self._snapshot(name) == others, (
                f"the other models should be as before: {others}, and are {self._snapshot(name)}"
            )

    def _killed(self, name: str, request: Request, expected: Expected) -> None:
        """Either the old deployment or the new one; the record says which."""
        self.place.counts["kills"] += 1
        model, found = self.models[name], self.place.deployment(name)
        allowed = model.starts | expected.new
        assert found in allowed, f"after a kill the record should be of {allowed}, is of {found}"
        record = self.place.bench.record(name)
        self._know(
            name,
            now=found,
            loaded=record is not None and record.wanted == "loaded",
            possible=frozenset(allowed),
            may_answer=model.may_answer | self._identities(name, allowed | {_asked(request)}),
            settled=False,
            interrupted=True,
            went_back=record is not None and record.rolled_back_from is not None,
            retained=self.place.retained(name),
        )
        checks.served_among(
            self.place, name, set(self.models[name].may_answer), "after a killed run"
        )

    def _failed(
        self,
        name: str,
        request: Request,
        expected: Expected,
        result: dict[str, Any],
        watch: Watch,
    ) -> None:
        """What was there is in place and served, and the message says so."""
        self.place.counts["failures"] += 1
        model = self.models[name]
        assert expected.must != "succeed" or watch.disturbed, f"it should succeed: {result['msg']}"
        found = self.place.deployment(name)
        if watch.disturbed or model.interrupted:
            may = self._identities(name, model.starts | expected.new | {_asked(request)})
            self._know(name, now=found, settled=False, may_answer=model.may_answer | may)
            self._know(name, interrupted=True, possible=model.starts | {found})
            return
        assert found == model.now, f"after a failure {model.now} should be deployed, is {found}"
        checks.truth(self.place, name, result)
        if model.changed or not model.settled:
            # A load of what failed cannot be taken back where the files before are not whole.
            may = self._identities(name, {model.now, _asked(request)})
            self._know(name, settled=False, may_answer=model.may_answer | may)
            checks.served_among(
                self.place, name, set(self.models[name].may_answer), "after a failure"
            )
        else:
            wanted = checks.wanted_of(name, model.now, model.loaded)
            checks.served_everywhere(self.place, name, wanted, "after a failure")
        checks.left_behind(self.place, self.models)

    def _succeeded(
        self,
        name: str,
        request: Request,
        expected: Expected,
        result: dict[str, Any],
        watch: Watch,
    ) -> None:
        """What was asked for is served, and nothing else; asked again, nothing is done."""
        model, found = self.models[name], self.place.deployment(name)
        assert expected.must != "fail", (
            f"it should fail, and says that it succeeded: {result['actions']}"
        )
        assert found in expected.new, f"it should deploy {expected.new} and deployed {found}"
        self._check_retained(name, request, found)
        unloaded_as_it_is = request.state == "unloaded" and request.version is None
        changed = model.changed if unloaded_as_it_is else frozenset[str]()
        self.settle(name, found, expected.loaded, changed)
        if request.version is not None or request.to is not None:
            assert not self.models[name].went_back, "a choice can be gone back from"
        self.check_settled(name)
        self.place.wait_for_unloads(name)
        again = self.finished(self.place.begin(0, name, request))["result"]
        if self.place.revive():
            return
        assert not again["failed"], f"asked again, it should succeed: {again['msg']}"
        assert not again["changed"] and not again["actions"], (
            f"asked again, nothing should be done, and these are: {again['actions']}"
        )

    def _check_retained(self, name: str, request: Request, found: Deployment | None) -> None:
        """What was replaced can be gone back to, and no more is kept than ``keep`` says."""
        before, retained = self.models[name].now, self.place.retained(name)
        side_by_side = any(one is not None and one.serve > 1 for one in (before, found, *retained))
        if None in (before, found) or side_by_side or self.models[name].interrupted:
            return  # parts of several deployments lie in one copy, or none was replaced
        if before == found:
            lost = set(self.models[name].retained[: request.keep]) - {*retained}
            assert not lost or request.state == "rolled_back", (
                f"what is put right takes no retained copy away, and {lost} went"
            )
            return
        # What was damaged could not be gone back to; what was only added to it is left out then.
        if request.keep and self.models[name].changed <= {*MADE_ANEW, "stray.txt"}:
            assert before in retained[:1], f"{before} should be retained, and {retained} are"
        # A copy whose files another one needs is there as long as that.
        kept = {tuple(one.files.items()) for one in retained}
        assert len(kept) <= request.keep, f"{request.keep} should be kept, and {retained} are"

    def settle(
        self,
        name: str,
        found: Deployment | None,
        loaded: bool,
        changed: frozenset[str] = frozenset(),
    ) -> None:
        """After a success this is known for certain."""
        before = self.models[name]
        record, retained = self.place.bench.record(name), self.place.retained(name)
        if not changed:
            self.originals[name].clear()
        self.models[name] = Model(
            now=found,
            loaded=loaded,
            retained=retained,
            went_back=record is not None and record.rolled_back_from is not None,
            changed=changed,
            may_answer=before.may_answer if changed else frozenset(),
        )

    def check_settled(self, name: str) -> None:
        model = self.models[name]
        wanted = checks.wanted_of(name, model.now, model.loaded)
        checks.served_everywhere(self.place, name, wanted, "after a success")
        if not model.changed:
            checks.agreement(self.place, name, model.now, model.loaded)
        self.check_drift(name)
        checks.left_behind(self.place, self.models)

    def check_drift(self, name: str) -> None:
        """Drift is told where there is one, and nowhere else."""
        model, drift = self.models[name], self.place.drift()[name]
        if model.now and (model.changed or model.touched):
            assert drift, f"{sorted(model.changed)} of {name} changed, and no drift is told"
        elif model.settled:
            assert not drift, f"{name} should have no drift, and these are told: {drift}"

    def _check_answers(self, name: str, request: Request, before: Model, watch: Watch) -> None:
        """A client is answered by the old or by the new, all the time where both are good."""
        after = self.models[name]
        allowed = self._identities(name, before.starts | after.starts | {_asked(request)})
        allowed |= before.may_answer | after.may_answer
        assert watch.identities <= allowed, (
            f"meanwhile clients may be answered by {sorted(allowed)} and were by"
            f" {sorted(watch.identities)}"
        )
        calm = before.settled and after.settled and before.loaded and after.loaded
        if calm and not watch.disturbed and not before.changed:
            assert not watch.gap, "clients should be answered all the time, and were not"

    def damage_record(self, name: str, run: Callable[[], dict[str, Any]]) -> None:
        """Whatever is asked of the model fails, says what to do, and does nothing; other models go
        on.
        """
        place, model = self.place, self.models[name]
        record, files = place.record_text(name), place.files(name)
        place.write_record(name, b"{}")
        result = run()["result"]
        checks.words(result)
        assert result["failed"] and place.bench.store.record_path(name) in result["msg"], (
            f"it should fail and name the record's file, and says {result.get('msg')}"
        )
        assert place.files(name) == files, "nothing should be changed"
        drift = place.drift()
        assert "record is damaged" in str(drift[name]), f"drift should say so: {drift[name]}"
        place.write_record(name, record)
        assert self.models[name] == model
        self.check_drift(name)

    # -- what befalls servers ----------------------------------------------------------------------

    def restart(self, number: int, alone: bool = False) -> None:
        """It comes up, and serves what the records want, unless files were changed by hand."""
        self.place.restart(number, alone)
        server = self.place.servers[number]
        for name, model in self.models.items():
            if model.foreign:
                continue
            if model.changed:
                self._know(name, settled=False)
                continue
            record = self.place.bench.record(name)
            found = self.place.deployment(name)
            assert found in model.starts, f"{name} is {found} in place of {model.starts}"
            loaded = record is not None and record.wanted == "loaded"
            wanted = checks.wanted_of(name, found, loaded)
            checks.served_everywhere(self.place, name, wanted, "after a restart", [server])
            # The other server may serve on what was not recovered.
            if len(self.place.servers) == 1:
                self._know(name, now=found, loaded=loaded, settled=True, may_answer=frozenset())
                self._know(name, possible=frozenset({found}), retained=self.place.retained(name))

    # -- small helpers -----------------------------------------------------------------------------

    def _know(self, name: str, **facts: Any) -> None:
        self.models[name] = dataclasses.replace(self.models[name], **facts)

    def _identities(self, name: str, deployments: Any) -> frozenset[int]:
        return frozenset(
            identity_of(name, version)
            for one in deployments
            if one is not None
            for version in one.ready.values()
        )

    def state_of(self, name: str) -> tuple[Any, ...]:
        """Record, and what each server serves."""
        served = [self.place.served(server, name) for server in self.place.servers]
        return self.place.bench.record(name), served

    def _snapshot(self, name: str) -> dict[str, Any]:
        """The state of the other models."""
        return {other: self.state_of(other) for other in NAMES if other != name}


def _asked(request: Request) -> Deployment | None:
    """What a request names, wherever it comes to lie."""
    return Deployment(request.version) if request.version else None


def after(model: Model, request: Request) -> list[Model]:
    """The models that a success of this operation may lead to."""
    expected = expect(model, request)
    return [Model(now=new, loaded=expected.loaded and new is not None) for new in expected.new]
