# SPDX-License-Identifier: Apache-2.0
"""What a module says where an exception comes up that nobody foresaw."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._exit import run
from ansible_collections.mlops.triton.plugins.modules import triton_models


def test_it_is_one_sentence_and_the_traceback_is_for_who_asks() -> None:
    module = Mock(params={})
    module.fail_json.side_effect = SystemExit

    def function(_module: Any) -> dict[str, Any]:
        raise KeyError("left out")

    with pytest.raises(SystemExit):
        run(module, function)
    failed = module.fail_json.call_args.kwargs
    assert failed["msg"].startswith("an unexpected KeyError ('left out'; test_exit.py, line ")
    assert failed["msg"].endswith("this is a defect of mlops.triton, please report it")
    assert failed["error"] == "Defect" and "Traceback" in failed["exception"]


def test_no_credentials_are_in_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "sesame99")
    module = Mock(params={})
    module.fail_json.side_effect = SystemExit

    def function(_module: Any) -> dict[str, Any]:
        raise ValueError("cannot use https://bob:hunter2@host/x with sesame99")

    with pytest.raises(SystemExit):
        run(module, function)
    failed = module.fail_json.call_args.kwargs
    for shown in (failed["msg"], failed["exception"]):
        assert "cannot use https://***@host/x" in shown
        assert "hunter2" not in shown and "sesame99" not in shown


def test_what_ansible_prints_is_no_command_for_a_terminal() -> None:
    module = Mock(params={}, _diff=True)
    module.exit_json.side_effect = SystemExit
    evil = "a\x1b[2J\nb\x9b\u202e\u200d"

    def function(_module: Any) -> dict[str, Any]:
        model = {"tags": {evil: evil}, "drift": [evil], "deep": [{"msg": evil}, [evil]]}
        return {
            "warnings": [evil],
            "diff": [{"before": evil}],
            "models": [model],
            "actions": [evil],
        }

    with pytest.raises(SystemExit):
        run(module, function)
    sentence = "a\\x1b[2J b\\x9b\\u202e\\u200d"
    # JSON escapes what is left of these; a program gets the letters' joiner as it was.
    data = "a\x1b[2J\nb\\x9b\\u202e\u200d"
    assert module.warn.call_args.args == (sentence,)
    shown = module.exit_json.call_args.kwargs
    assert shown["diff"] == [{"before": sentence.replace(" ", "\n")}]
    assert shown["actions"] == [sentence]
    assert shown["models"] == [
        {"tags": {data: data}, "drift": [sentence], "deep": [{"msg": sentence}, [data]]}
    ]


def test_options_of_one_entry_do_not_end_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wanted:
        def __init__(self, options: dict[str, Any]) -> None:
            self.name = options["name"]

        @staticmethod
        def from_options(options: dict[str, Any]) -> Any:
            if options["name"] == "net":
                raise KeyError("left out")
            return Wanted(options)

    delivered: list[str] = []

    def deliver(wanted: list[Wanted], **more: Any) -> list[Any]:
        delivered.extend(one.name for one in wanted)
        assert more["failed"] == ["net"]
        return []

    delivery = Mock()
    there = Mock(deliver=deliver, with_standing=lambda refused: refused, unreached=[], warnings=[])
    delivery.return_value.__enter__ = Mock(return_value=there)
    delivery.return_value.__exit__ = Mock(return_value=None)
    monkeypatch.setattr(triton_models, "DesiredModel", Wanted)
    monkeypatch.setattr(triton_models, "Delivery", delivery)
    params = {
        "models": [{"name": "net"}, {"name": "other"}],
        "only_environments": False,
        "deployment_set": None,
        "purge": False,
        "purge_limit": None,
        "model_repository": "/models",
    }
    (failure,) = triton_models.deliver(Mock(params=params, check_mode=False))["failures"]
    assert "model 'net', read the options: an unexpected KeyError" in failure
    assert delivered == ["other"]
