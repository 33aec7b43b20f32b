# SPDX-License-Identifier: Apache-2.0
"""What a load without an answer means."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import Mock

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.served import (
    ServedModel,
    VersionRow,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    LoadPending,
    ServerTimeout,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.execution.serving import (
    Serving,
)

RECORD = cast(Any, Mock(deploy_id="wanted", triton_versions=(1,), request={}))
RECORD.name = "model"


def load_without_answer(served: Any) -> None:
    server = Mock(url="server")
    server.load.side_effect = LoadPending("was still loading", step="load")
    server.served.side_effect = [served]
    Serving(Mock(), [server])._load_until_served(server, RECORD, Mock())


@pytest.mark.parametrize(
    "served",
    [
        ServerTimeout("did not answer", step="ask", server="server"),
        ServedModel("server", (VersionRow(1, "READY"),), "another"),
    ],
    ids=["silent", "another deployment"],
)
def test_it_is_pending(served: Any) -> None:
    """Also where the server falls silent just then: the pending load must be written down."""
    with pytest.raises(LoadPending):
        load_without_answer(served)


def test_it_is_done_where_the_server_serves_it() -> None:
    load_without_answer(ServedModel("server", (VersionRow(1, "READY"),), "wanted"))
