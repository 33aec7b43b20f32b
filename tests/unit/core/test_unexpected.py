# SPDX-License-Identifier: Apache-2.0
"""What is left, and told, where an exception comes up that nobody foresaw."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    Defect,
    DeliveryError,
    NeedsOther,
    as_delivery_error,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution import serving
from ansible_collections.mlops.triton.plugins.module_utils._delivery.orchestration import (
    plan_builder,
    registry_status,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.folder import (
    FolderRepository,
)

pytest.importorskip("tritonclient")

from support.memory_triton import (
    CONFIG,
    MemoryTriton,
    deliver,
    make_artifact,
    make_model,
)

VERIFY = {"inputs": {"x": [[1, 2, 3]]}}


@pytest.fixture
def triton(tmp_path: Path) -> MemoryTriton:
    (tmp_path / "models").mkdir()
    return MemoryTriton(tmp_path / "models")


def fails(*_args: Any, **_more: Any) -> Any:
    raise TypeError("unsupported operand\ntype(s) of http://me:secret@host")


def uri_of(triton: MemoryTriton, name: str) -> str | None:
    record = FolderRepository(str(triton.repository)).store.record(name)
    return record.model_uri if record else None


def said(error: DeliveryError | None) -> str:
    assert isinstance(error, Defect), error
    text = str(error)
    assert "\n" not in text and "secret" not in text and "Traceback" not in text
    return text


def test_it_is_told_as_a_defect_in_one_line() -> None:
    with pytest.raises(TypeError) as caught:
        fails()
    text = said(as_delivery_error(caught.value, step="plan").about(model="net"))
    assert text.startswith(
        "model 'net', plan: an unexpected TypeError (unsupported operand type(s) of http://***@host"
        "; test_unexpected.py, line "
    )
    assert text.endswith("): this is a defect of mlops.triton, please report it")
    assert "no memory left" in as_delivery_error(MemoryError()).message


class TestInATransaction:
    def test_the_model_goes_back_and_the_others_of_the_list_go_on(
        self, triton: MemoryTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old, new = make_model(tmp_path / "old"), make_model(tmp_path / "new")
        deliver(triton, {"name": "net", "model_uri": old})
        before = triton.loaded["net"]
        monkeypatch.setattr(serving, "verify_everywhere", fails)
        other, net = deliver(
            triton,
            {"name": "other", "model_uri": new},
            {"name": "net", "model_uri": new, "verify": VERIFY},
        )
        assert other.changed and other.error is None
        text = said(net.error)
        assert text.startswith("model 'net', verify by an inference: an unexpected TypeError")
        assert f"{old} is in place as before, and localhost:8000 serves version 1" in text
        assert triton.loaded["net"] == before
        assert (uri_of(triton, "net"), uri_of(triton, "other")) == (old, new)
        (again,) = deliver(triton, {"name": "net", "model_uri": old})
        assert (again.changed, again.error) == (False, None)

    def test_a_first_deployment_leaves_nothing(
        self, triton: MemoryTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(serving, "verify_everywhere", fails)
        model = {"name": "net", "model_uri": make_model(tmp_path / "new"), "verify": VERIFY}
        (net,) = deliver(triton, model)
        assert "nothing of it was left in the repository, and no server" in said(net.error).lower()
        assert not (triton.repository / "net").exists() and not triton.loaded

    def test_what_goes_wrong_on_the_way_back_is_told_too(
        self, triton: MemoryTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deliver(triton, {"name": "net", "model_uri": make_model(tmp_path / "old")})
        monkeypatch.setattr(serving, "verify_everywhere", fails)
        monkeypatch.setattr(serving, "serves_side_by_side", fails)
        model = {"name": "net", "model_uri": make_model(tmp_path / "new"), "verify": VERIFY}
        (net,) = deliver(triton, model)
        assert "localhost:8000 could not be brought back (an unexpected TypeError" in said(
            net.error
        )

    def test_after_the_record_was_written_it_is_tidied_up_by_the_next_run(
        self, triton: MemoryTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        new = make_model(tmp_path / "new")
        with monkeypatch.context() as patch:
            patch.setattr(FolderRepository, "retire", fails)
            (net,) = deliver(triton, {"name": "net", "model_uri": new})
        assert "is complete but for tidying up" in said(net.error)
        assert uri_of(triton, "net") == new
        (again,) = deliver(triton, {"name": "net", "model_uri": new})
        assert again.error is None

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
    def test_a_run_that_is_stopped_still_stops(
        self,
        triton: MemoryTriton,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        stop: type[BaseException],
    ) -> None:
        def stopped(*_args: Any) -> None:
            raise stop

        monkeypatch.setattr(serving, "verify_everywhere", stopped)
        new = make_model(tmp_path / "new")
        with pytest.raises(stop):
            deliver(triton, {"name": "net", "model_uri": new, "verify": VERIFY})


class TestWhilePlanning:
    @pytest.mark.parametrize("check", [True, False])
    def test_it_is_that_model_s_failure_alone(
        self,
        triton: MemoryTriton,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        check: bool,
    ) -> None:
        known = plan_builder.make_plan

        def fails_for_net(*args: Any, **more: Any) -> Any:
            if "name='net'" in repr(args):
                fails()
            return known(*args, **more)

        monkeypatch.setattr(plan_builder, "make_plan", fails_for_net)
        new = make_model(tmp_path / "new")
        other, net = deliver(
            triton,
            {"name": "other", "model_uri": new},
            {"name": "net", "model_uri": new, "depends_on": ["other"]},
            check=check,
        )
        assert other.changed and other.error is None
        assert said(net.error).endswith("please report it. Nothing was changed.")
        assert "net" not in triton.loaded and ("other" in triton.loaded) is not check

    def test_under_the_lock_nothing_is_changed(
        self, triton: MemoryTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FolderRepository, "recover", fails)
        new = make_model(tmp_path / "new")
        first, second = deliver(
            triton,
            {"name": "first", "model_uri": new},
            {"name": "second", "model_uri": new, "depends_on": ["first"]},
        )
        assert said(first.error).endswith("Nothing was changed.")
        assert isinstance(second.error, NeedsOther) and not triton.loaded


def test_a_result_is_not_lost_with_what_the_registry_is_told(
    triton: MemoryTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_status, "_deployed", fails)
    report = registry_status.StatusReport(cast(Any, None), "production")
    results = deliver(triton, {"name": "net", "model_uri": make_model(tmp_path / "new")})
    done = report.add({result.name: result for result in results})["net"]
    assert done.changed and done.error is None
    (warning,) = done.warnings
    assert "its deployment status is not in the registry: an unexpected TypeError" in warning


def test_an_example_with_a_text_that_is_none_is_left_out(
    triton: MemoryTriton, tmp_path: Path
) -> None:
    """Half of a surrogate pair, which JSON can write and UTF-8 cannot."""
    config = CONFIG.replace("FP32", "STRING")
    example = '{"inputs": {"x": [["\\ud800", "b", "c"]]}}'
    model = make_artifact(tmp_path / "new", example, config)
    (net,) = deliver(triton, {"name": "net", "model_uri": model})
    assert net.error is None and "net" in triton.loaded
    assert any("no request can be made of its input example" in text for text in net.warnings)
