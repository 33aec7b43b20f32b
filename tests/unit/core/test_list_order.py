# SPDX-License-Identifier: Apache-2.0
"""Which models of a list come after which: nothing is served here."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.planning.list_order import (
    Member,
    order_of,
)

NONE: frozenset[str] = frozenset()


def served(name: str, *needs: str, uses: tuple[str, ...] = ()) -> Member:
    return Member(name, True, frozenset(needs), frozenset(uses))


def leaving(name: str, *uses: str, needs: tuple[str, ...] = ()) -> Member:
    return Member(name, False, frozenset(needs), frozenset(uses))


def test_users_come_after_what_they_need() -> None:
    order = order_of([served("both", "one", "two"), served("one"), served("two", "one")])
    assert order.after == {"both": {"one", "two"}, "one": NONE, "two": {"one"}}
    assert order.sequence() == ["one", "two", "both"]
    assert order.refused == {}
    assert order.stays == {"both", "one", "two"}


def test_what_goes_comes_after_all_that_use_it_now() -> None:
    order = order_of([leaving("one"), served("user", uses=("one",)), leaving("other", "one")])
    assert order.after == {"one": {"user", "other"}, "user": NONE, "other": NONE}
    assert order.sequence()[-1] == "one"
    assert order.refused == {}
    assert order.stays == {"user"}


def test_what_is_needed_in_the_end_may_not_go() -> None:
    order = order_of([leaving("one"), served("user", "one")])
    assert order.refused == {"one": "'user' of the same list depends on it"}
    assert order.why_not("one", ()) == "'user' of the same list depends on it"
    assert order.why_not("user", ()) is None
    assert order.after["user"] == NONE, "what is refused is not waited for"


def test_the_first_user_of_the_list_is_named() -> None:
    order = order_of([served("b", "one"), served("a", "one"), leaving("one")])
    assert order.refused == {"one": "'b' of the same list depends on it"}


def test_what_a_leaving_model_would_need_is_of_no_account() -> None:
    order = order_of([leaving("user", needs=("one",)), leaving("one")])
    assert (order.after, order.refused) == ({"user": NONE, "one": NONE}, {})


def test_models_outside_the_list_are_not_waited_for() -> None:
    order = order_of([served("user", "elsewhere", uses=("gone",)), leaving("one", "elsewhere")])
    assert (order.after, order.refused) == ({"user": NONE, "one": NONE}, {})


def test_what_stays_is_not_held_up_by_its_present_users() -> None:
    order = order_of([served("one"), served("user", uses=("one",))])
    assert order.after == {"one": NONE, "user": NONE}


def test_what_uses_itself_can_go() -> None:
    order = order_of([leaving("one", "one")])
    assert (order.after, order.refused) == ({"one": NONE}, {})


def test_why_not_names_those_that_failed() -> None:
    order = order_of([served("user", "one", "two", "three"), *map(served, ("one", "two", "three"))])
    assert order.why_not("user", ["two"]) == "it depends on 'two', which failed in this run"
    assert order.why_not("user", {"two", "one", "x"}) == (
        "it depends on 'one', 'two', which failed in this run"
    )
    assert order.why_not("user", ["elsewhere"]) is None
    assert order.why_not("one", ["user"]) is None
    assert order.why_not("unknown", ["one"]) is None


def test_why_not_for_what_goes_names_its_user() -> None:
    order = order_of([leaving("one"), served("user", uses=("one",))])
    assert order.why_not("one", ["user"]) == "'user' still uses it, having failed in this run"
    assert order.why_not("one", []) is None


def test_a_circle_is_refused_whole_and_the_rest_goes_on() -> None:
    order = order_of([served("a", "b"), served("b", "c"), served("c", "a"), served("d", "a")])
    assert set(order.refused) == {"a", "b", "c"}
    (sentence,) = set(order.refused.values())
    walks = {
        f"the models depend on each other ({' → '.join([*walk, walk[0]])})"
        for walk in (("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"))
    }
    assert sentence in walks, "each name is followed by what it needs"
    assert order.after == {"a": NONE, "b": NONE, "c": NONE, "d": {"a"}}
    assert order.sequence().index("a") < order.sequence().index("d")
    assert order.why_not("d", ["a"]) == "it depends on 'a', which failed in this run"


def test_a_refused_circle_still_waits_for_others() -> None:
    order = order_of([served("a", "b", "base"), served("b", "a"), served("base")])
    assert order.after["a"] == {"base"}
    assert set(order.refused) == {"a", "b"}


def test_each_of_two_circles_is_named() -> None:
    order = order_of([served("a", "b"), served("b", "a"), served("c", "d"), served("d", "c")])
    assert all("a" in order.refused[name] for name in "ab")
    assert all(f" {name} " in f" {order.refused[name].split('(')[1][:-1]} " for name in "abcd")
    assert sorted(order.sequence()) == ["a", "b", "c", "d"]


def test_a_model_that_needs_itself() -> None:
    order = order_of([served("a", "a", "b"), served("b")])
    assert order.refused == {"a": "it is said to depend on itself"}
    assert order.after["a"] == {"b"}


def test_what_need_not_be_done_is_not_waited_for_but_what_it_needs_is() -> None:
    order = order_of([served("a", "b", "c"), served("b", "d"), served("c", "d"), served("d")])
    assert order.waits_for("a", {"a", "b", "c", "d"}) == {"b", "c"}
    assert order.waits_for("a", {"a", "b", "d"}) == {"b", "d"}, "c is passed through"
    assert order.waits_for("a", {"a", "d"}) == {"d"}
    assert order.waits_for("a", {"a"}) == NONE
    assert order.waits_for("d", {"a", "b", "c", "d"}) == NONE
    assert order.waits_for("unknown", {"a", "b", "c", "d"}) == NONE


def test_a_deep_list_in_which_little_is_done_takes_no_time() -> None:
    """Layers of two models, each of which needs both of the layer before: 2 ** 60 ways lead from
    the last to the first.
    """
    layers = [(f"left {number}", f"right {number}") for number in range(60)]
    order = order_of(
        served(name, *before) for before, layer in zip([(), *layers], layers) for name in layer
    )
    assert order.waits_for("left 59", {"left 59", "left 0", "right 0"}) == {"left 0", "right 0"}


def test_nothing_to_do() -> None:
    order = order_of([])
    assert (order.after, order.refused, order.stays, order.sequence()) == ({}, {}, NONE, [])


@pytest.mark.parametrize("links", range(1, 64))
def test_every_graph_of_three_has_a_sequence(links: int) -> None:
    """All ways in which three served models can need each other: the sequence holds all, each
    after what it waits for; only models of a circle are refused.
    """
    arrows = [pair for bit, pair in enumerate(itertools.permutations("abc", 2)) if links >> bit & 1]
    needs = {name: {needed for user, needed in arrows if user == name} for name in "abc"}
    order = order_of(served(name, *needs[name]) for name in "abc")
    sequence = order.sequence()
    assert sorted(sequence) == ["a", "b", "c"]
    for name, before in order.after.items():
        assert all(sequence.index(one) < sequence.index(name) for one in before)
        assert before <= needs[name]
        if name not in order.refused:
            assert before == needs[name], "nothing that is needed is forgotten"
    reach = {name: {one for one in "abc" if _reaches(needs, name, one)} for name in "abc"}
    assert set(order.refused) <= {name for name in "abc" if name in reach[name]}
    in_circle = any(name in reach[name] for name in "abc")
    assert bool(order.refused) == in_circle


def _reaches(needs: dict[str, set[str]], start: str, end: str) -> bool:
    seen: set[str] = set()
    front = set(needs[start])
    while front - seen:
        seen |= front
        front = {further for one in front for further in needs[one]}
    return end in seen
