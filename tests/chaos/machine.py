# SPDX-License-Identifier: Apache-2.0
"""The rules of the walk: operations and mishaps in random order, on a real engine and a real
Triton.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from chaos import checks, walker
from chaos.expectation import BATCH, GOOD, LACKS, RAISES, SLOW, WRONG, Request
from chaos.place import NAMES, Place
from chaos.shorten import Failure, Step
from chaos.walker import MISHAPS, LeftOut, Walker, after, need
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

# What befalls one model several times finds more than what befalls each of two once.
names = st.sampled_from((*NAMES, NAMES[0], NAMES[0]))
numbers = st.integers(0, 1)


def _requests(**given: st.SearchStrategy[Any]) -> st.SearchStrategy[Request]:
    def make(options: dict[str, Any]) -> Request:
        if "folders side by side" in walker.KNOWN and not options.get("registered"):
            options = {**options, "serve": 1}
        return Request(**options)

    return st.fixed_dictionaries(given).map(make)


_seldom = st.sampled_from((False, False, True))
_presents = _requests(
    version=st.sampled_from(GOOD),
    registered=st.booleans(),
    serve=st.sampled_from((1, 2)),
    batch=st.sampled_from((None, None, 4, 16)),
    keep=st.sampled_from((1, 0, 2)),
    verify=st.booleans(),
    check_files=_seldom,
    mode=st.sampled_from((None, None, "0640")),
    adopt=_seldom,
)
_bad = st.sampled_from(
    (Request(version=RAISES), Request(version=WRONG, verify=True), Request(version=LACKS))
)
_unloads = _requests(
    state=st.just("unloaded"), version=st.sampled_from((None, None, *GOOD)), adopt=_seldom
)
_rollbacks = _requests(
    state=st.just("rolled_back"),
    to=st.sampled_from((None, None, *GOOD)),
    registered=st.booleans(),
    keep=st.sampled_from((1, 0, 2)),
)
_removals = _requests(state=st.just("absent"), adopt=st.booleans())
requests = st.one_of(*[_presents] * 5, *[_rollbacks] * 3, *[_unloads] * 2, _bad, _bad, _removals)
plain = st.one_of(_presents, _unloads.filter(lambda one: one.version is not None), _removals)

_make_rule: Callable[..., Any] = rule
Rule = TypeVar("Rule", bound=Callable[..., None])


# By chance alone, a change seldom comes to be served, and then to be taken back.
_stories = st.tuples(
    st.sampled_from(("edit model.py", "edit config.pbtxt", "touch 4000 days", "override")),
    st.sampled_from(("restart", "load")),
    st.sampled_from(("restore files", "touch -400 days", "unload")),
).map(list)
_mishaps = st.one_of(_stories, st.lists(st.sampled_from(MISHAPS), min_size=1, max_size=3))


def step(**given: st.SearchStrategy[Any]) -> Callable[[Rule], Rule]:
    """A rule, which is counted, and left out of a walk that is idle."""

    def decorate(function: Rule) -> Rule:
        @functools.wraps(function)
        def guarded(self: Walk, **values: Any) -> None:
            if self.idle or self.place.is_over():
                return
            call = Step(function.__name__, values)
            try:
                function(self, **values)
            except LeftOut:
                return
            except Exception as error:
                sentence = str(error) if isinstance(error, AssertionError) else repr(error)
                frame = traceback.extract_tb(error.__traceback__)[-1]
                line = (frame.filename, frame.lineno or 0)
                self.place.failure = Failure((*self.steps, call), sentence, line)
                raise
            self.place.counts["steps"] += 1
            self.steps.append(call)

        return _make_rule(**given)(guarded)

    return decorate


class Walk(Walker, RuleBasedStateMachine):
    """Rules, and what they draw."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.idle = True

    @initialize(walk=st.integers(0, 1 << 16))
    def begin(self, walk: int) -> None:
        """Hypothesis tries the simplest walk first, all of whose choices are 0: it is left out."""
        self.idle = walk == 0 or self.place.is_over() or self.place.failure is not None
        if not self.idle:
            self.place.wipe()

    # -- operations --------------------------------------------------------------------------------

    @step(name=names, request=requests)
    def ask(self, name: str, request: Request) -> None:
        self._ask(name, request)

    @step(name=names, mishaps=_mishaps, request=st.one_of(st.none(), requests))
    def ask_after(self, name: str, mishaps: list[str], request: Request | None) -> None:
        """Something happens to a model, and then an operation is asked for.

        Without a request it is what is deployed already, as a nightly run asks for it.
        """
        self._have(name)
        for mishap in mishaps:
            self.befall(name, mishap)
        if request or self.models[name].now:
            self._ask(name, request or self._as_deployed(name))

    @step(name=names, mishaps=st.one_of(st.just([]), _mishaps), back=st.booleans())
    def unload_and_load_again(self, name: str, mishaps: list[str], back: bool) -> None:
        """No server tells of what is unloaded, whatever befell it."""
        self._have(name)
        for mishap in mishaps:
            self.befall(name, mishap)
        self._ask(name, Request("unloaded"))
        if now := self.models[name].now:
            here = Request("rolled_back", registered=now.registered, to=now.version)
            self._ask(name, here if back else self._as_deployed(name))

    @step(
        name=names,
        mishap=st.sampled_from(("restart", "touch 30 days", "touch 4000 days")),
        times=st.integers(1, 4),
        version=st.sampled_from(GOOD),
    )
    def fail_again_and_again(self, name: str, mishap: str, times: int, version: int) -> None:
        """Deployments that are taken back leave nothing in the way of one that is good."""
        self._have(name)
        self.befall(name, mishap)
        self._ask(name, Request(version=1))
        for _time in range(times):
            self._ask(name, Request(version=WRONG, verify=True))
        self._ask(name, Request(version=version, verify=True))

    @step(name=names, mishaps=_mishaps)
    def befall_model(self, name: str, mishaps: list[str]) -> None:
        self._have(name)
        for mishap in mishaps:
            self.befall(name, mishap)

    @step(name=names, request=requests)
    def ask_over_a_foreign_one(self, name: str, request: Request) -> None:
        """Somebody else's folder takes the place of what is deployed."""
        self._ask(name, Request("absent", adopt=True))
        self.put_foreign(name)
        self._ask(name, request)

    @step(name=names, request=requests)
    def look(self, name: str, request: Request) -> None:
        """A check run says what would be done, and does nothing."""
        before = self.state_of(name)
        answer = self.finished(self.place.begin(0, name, request, check=True))
        checks.words(answer["result"])
        assert not answer["effects"], f"a check run should do nothing, and did {answer['effects']}"
        after = self.state_of(name)
        assert before == after, f"a check run should leave {before} and left {after}"

    def _have(self, name: str) -> None:
        """Let something be deployed, and nothing of a killed run lie about."""
        model = self.models[name]
        if model.now is None or model.interrupted or model.foreign:
            self._ask(name, Request(version=1, adopt=True))

    def _as_deployed(self, name: str) -> Request:
        now = self.models[name].now
        assert now is not None
        batch = None if now.batch == BATCH else now.batch
        return Request("present", now.version, now.registered, now.serve, batch)

    def _ask(self, name: str, request: Request) -> None:
        self.operate(name, request, lambda: self.finished(self.place.begin(0, name, request)))

    @step(
        name=names,
        request=requests,
        effect=st.integers(1, 20),
        moment=st.sampled_from(("before", "after")),
        restart=_seldom,
    )
    def ask_and_kill(
        self, name: str, request: Request, effect: int, moment: str, restart: bool
    ) -> None:
        """The run ends with SIGKILL at one of its effects, if it has as many."""
        kill = [effect, moment]
        self.operate(
            name,
            request,
            lambda: self.finished(self.place.begin(0, name, request, kill=kill)),
        )
        if restart:
            for number in range(len(self.place.servers)):
                self.restart(number)

    @step(
        name=names,
        request=requests,
        number=numbers,
        at=st.sampled_from(
            (
                ("load", "before"),
                ("load", "after"),
                ("exchange", "after"),
                ("unload", "before"),
                ("replace", "before"),
                ("copy", "after"),
            )
        ),
        alone=st.booleans(),
        late=st.booleans(),
    )
    def ask_while_a_server_dies(
        self,
        name: str,
        request: Request,
        number: int,
        at: tuple[str, str],
        alone: bool,
        late: bool,
    ) -> None:
        """A server dies when the run has come to a certain effect, or a moment later."""
        number %= len(self.place.servers)
        alone = alone and "server killed alone" not in walker.KNOWN

        def run() -> dict[str, Any]:
            gate = self.place.bench.folder / "gate"
            gate.touch()
            future = self.place.begin(0, name, request, pause=[*at, str(gate)])
            paused = self.place.bench.child().paused
            while paused.empty() and not future.done():
                time.sleep(0.002)
            if late:
                gate.unlink()
                time.sleep(0.03)
            died = not future.done()
            if died:
                self.place.counts["servers killed in a run"] += 1
                self.place.restart(number, alone)
            up = time.monotonic()
            gate.unlink(missing_ok=True)
            return {**self.finished(future), "disturbed": died, "up": up}

        self.operate(name, request, run)

    @step(name=names, pause=st.sampled_from((0, 0, 0, 0.2, 1.0)))
    def kill_a_server_alone_in_a_long_load(self, name: str, pause: float) -> None:
        """Its backend's process lives on and holds the connection of the load. It takes some
        seconds, and is left out more often than not.
        """
        need(pause and "server killed alone" not in walker.KNOWN)

        def run() -> dict[str, Any]:
            gate = self.place.bench.folder / "gate"
            gate.touch()
            request = Request(version=SLOW, adopt=True)
            future = self.place.begin(0, name, request, pause=["load", "before", str(gate)])
            paused = self.place.bench.child().paused
            while paused.empty() and not future.done():
                time.sleep(0.002)
            gate.unlink()
            time.sleep(pause)
            self.place.counts["servers killed in a run"] += 1
            self.place.restart(0, alone=True)
            up = time.monotonic()
            return {**self.finished(future), "disturbed": True, "up": up}

        self.operate(name, Request(version=SLOW, adopt=True), run)

    @step(name=names, request=requests)
    def ask_over_a_damaged_record(self, name: str, request: Request) -> None:
        self._have(name)
        self.damage_record(name, lambda: self.finished(self.place.begin(0, name, request)))

    @step(name=names, first=plain, second=plain, rolled_back=st.booleans())
    def ask_two_at_once(
        self, name: str, first: Request, second: Request, rolled_back: bool
    ) -> None:
        if rolled_back:
            self._have(name)
            self._ask(name, Request(version=2, verify=True))
            self._ask(name, Request("rolled_back"))
        model = self.models[name]
        need(not model.foreign and not model.interrupted)
        gate = self.place.bench.folder / "barrier"
        gate.unlink(missing_ok=True)
        both = [
            self.place.begin(number, name, request, before=str(gate))
            for number, request in enumerate((first, second))
        ]
        time.sleep(0.02)
        with self.place.watched(name) as watch:
            gate.touch()
            results = [self.finished(one)["result"] for one in both]
        forward = [one for one in results if "this rolls it forward" in str(one["warnings"])]
        assert len(forward) < 2, "only the first of two runs rolls a model forward"
        for result in results:
            checks.words(result)
            assert watch.disturbed or not result["failed"], (
                f"both of two runs at once should succeed, and one says: {result['msg']}"
            )
        ends = {
            end
            for one, other in ((first, second), (second, first))
            for between in after(model, one)
            for end in after(between, other)
        }
        found = self.place.deployment(name)
        record = self.place.bench.record(name)
        loaded = record is not None and record.wanted == "loaded"
        assert (found, loaded) in {(end.now, end.loaded) for end in ends} or watch.disturbed, (
            f"two runs at once should end as one of {ends} and ended as {found}, loaded: {loaded}"
        )
        self.settle(name, found, loaded)
        if not watch.disturbed:
            self.check_settled(name)

    @step(number=numbers, alone=st.booleans())
    def restart_server(self, number: int, alone: bool) -> None:
        self.restart(number % len(self.place.servers), alone)


def walk_again(place: Place, steps: tuple[Step, ...]) -> Failure | None:
    """Carry out these steps in a fresh place; returns how that failed."""
    place.failure, place.until = None, math.inf
    state = Walk(place)
    state.begin(walk=1)
    for one in steps:
        with contextlib.suppress(Exception):
            getattr(state, one.rule)(**one.values)
        if place.failure:
            break
    return place.failure
