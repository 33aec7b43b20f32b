# SPDX-License-Identifier: Apache-2.0
"""Why Triton refuses a configuration, as far as its own fields tell. A real server is asked about
the same texts by ``tests/integration/test_config_oracle.py``.
"""

from __future__ import annotations

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import (
    config_pbtxt,
    config_rules,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.layout import Layout
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.servable import (
    refuse_layout,
    refuse_unservable,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import ConfigError
from support.config_rules import (
    BROKEN,
    BROKEN_ENSEMBLES,
    BROKEN_WITH_BACKEND,
    KEPT,
    KEPT_ENSEMBLES,
    KEPT_WITH_BACKEND,
    model_of,
)

ALL_BROKEN = BROKEN | BROKEN_WITH_BACKEND


def _why(text: str, backend: str = "python") -> str | None:
    return config_rules.why_refused(config_pbtxt.parse(text.encode()), backend)


@pytest.mark.parametrize("text", ALL_BROKEN)
def test_what_triton_refuses_is_refused_with_what_to_write(text: str) -> None:
    reason = _why(model_of(text))
    assert reason is not None
    assert ALL_BROKEN[text] in reason


@pytest.mark.parametrize("text", [*KEPT, *KEPT_WITH_BACKEND])
def test_what_triton_loads_is_not_refused(text: str) -> None:
    assert _why(model_of(text)) is None


@pytest.mark.parametrize("key", ["a b", "_x", "a-b", "é", "a\\n", "x:y", "_"])
def test_a_metric_tag_of_which_the_server_dies_is_refused(key: str) -> None:
    """No real one is asked here: ``tests/integration/test_trust.py`` does it, with another name."""
    said = _why(model_of(f'metric_tags {{ key: "{key}" value: "x" }}'))
    assert said is not None and "no label of Prometheus" in said
    for sound in ("", "1a", "A_b", "model", "le"):
        assert _why(model_of(f'metric_tags {{ key: "{sound}" value: "a b" }}')) is None


def test_a_tensor_without_type_or_dims_is_refused_where_no_backend_completes_it() -> None:
    untyped, shapeless = 'input { name: "x" dims: 3 }', 'input { name: "x" data_type: TYPE_FP32 }'
    assert "input 'x' has no data_type" in str(_why(untyped, "pytorch"))
    assert "input 'x' has no dims" in str(_why(shapeless, "pytorch"))
    assert "no dims" in str(_why(f'platform: "ensemble" {shapeless}', ""))
    for backend in ("python", "onnxruntime", "tensorrt", "fil", ""):
        assert _why(untyped, backend) is None
        assert _why(shapeless, backend) is None


@pytest.mark.parametrize("part", [*BROKEN_ENSEMBLES, *KEPT_ENSEMBLES])
def test_the_fields_of_an_ensemble_are_judged_too(part: str) -> None:
    reason = _why(f'platform: "ensemble" {model_of(part)}', "ensemble")
    if part in BROKEN_ENSEMBLES:
        assert BROKEN_ENSEMBLES[part] in str(reason)
    else:
        assert reason is None


def test_inputs_that_a_backend_may_name_are_not_missed() -> None:
    counted = "batch_input { kind: BATCH_ELEMENT_COUNT data_type: TYPE_FP32 source_input: 'z' }"
    assert _why(counted, "onnxruntime") is None
    assert _why("model_warmup { batch_size: 1 }", "onnxruntime") is None


def test_an_overlay_is_judged_as_the_configuration_is() -> None:
    config = config_pbtxt.apply_overlay(config_pbtxt.new_message(), {"max_batch_size": -1})
    config.backend = "python"
    with pytest.raises(ConfigError, match="max_batch_size is -1"):
        refuse_unservable(config, "m", (1,), ["1/model.py"])


def test_a_conversion_may_write_the_largest_batch() -> None:
    config = b'backend: "fil" dynamic_batching { preferred_batch_size: 64 }'
    made = Layout("sklearn", (), (), config, (1,), (1,), conversion="sklearn")
    found = Layout("triton", (("x", "1/xgboost.model", 9),), (), config, (1,), (1,))
    refuse_layout(config, "m", made)
    with pytest.raises(ConfigError, match="its max_batch_size is 0"):
        refuse_layout(config, "m", found)
