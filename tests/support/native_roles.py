# SPDX-License-Identifier: Apache-2.0
"""Variables of roles triton and mlflow for a host that is this machine, with all of it in one
folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from warm_python import interpreter

from . import servers


def variables(folder: Path) -> dict[str, Any]:
    ports = servers.free_ports(4)
    return {
        "ansible_connection": "local",
        "ansible_python_interpreter": interpreter(),
        "mlflow_home": str(folder / "mlflow"),
        "mlflow_user": "",
        "mlflow_service_manager": "supervisor",
        "mlflow_port": ports[0],
        "mlflow_python": sys.executable,
        "triton_home": str(folder / "triton"),
        "triton_user": "",
        "triton_service_manager": "supervisor",
        "triton_model_repository": str(folder / "models"),
        "triton_python": sys.executable,
        "triton_http_port": ports[1],
        "triton_grpc_port": ports[2],
        "triton_metrics_port": ports[3],
        "triton_start_timeout": 60,
        "triton_shutdown_timeout": 5,
        "triton_extra_args": ["--disable-auto-complete-config"],
    }


def ready_made() -> dict[str, Any]:
    """The environments which make has made: installing them is what the roles' own Molecule
    scenarios test.
    """
    return {
        "triton_manage_venvs": False,
        "triton_server_venv": str(
            servers.server_python("TRITON_SERVER_PYTHON", "triton-server").parent.parent
        ),
        "triton_client_venv": sys.prefix,
        "triton_supervisor_venv": sys.prefix,
        "mlflow_manage_venvs": False,
        "mlflow_venv": str(
            servers.server_python("MLFLOW_SERVER_PYTHON", "mlflow-server").parent.parent
        ),
        "mlflow_supervisor_venv": sys.prefix,
    }
