# SPDX-License-Identifier: Apache-2.0
"""What a module says where an exception comes up that nobody foresaw."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._exit import run


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
