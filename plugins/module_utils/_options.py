# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
"""Argument-spec groups. Each has a doc fragment of the same name in lower case; a unit test keeps
the pairs equal. Every module imports this first of all that is ours, and so ends here where its
Python is too old for the rest.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import env_fallback

from ._python import refuse_old_python

refuse_old_python()

Spec = dict[str, dict[str, Any]]

REGISTRY: Spec = {
    "tracking_uri": {"type": "str", "fallback": (env_fallback, ["MLFLOW_TRACKING_URI"])},
    "registry_uri": {"type": "str", "fallback": (env_fallback, ["MLFLOW_REGISTRY_URI"])},
    # MLflow reads its environment itself where these are omitted.
    "mlflow_username": {"type": "str"},
    "mlflow_password": {"type": "str", "no_log": True},
    "mlflow_token": {"type": "str", "no_log": True},
    "mlflow_ca_file": {"type": "path"},
    "mlflow_client_cert": {"type": "path"},
    "mlflow_client_key": {"type": "path", "no_log": False},
    "artifact_folders": {"type": "list", "elements": "path"},
}

SERVER: Spec = {
    "triton_url": {
        "type": "list",
        "elements": "str",
        "default": ["localhost:8000"],
        "fallback": (env_fallback, ["TRITON_URL"]),
    },
    "load_url": {"type": "list", "elements": "str"},
    "metrics_url": {"type": "list", "elements": "str"},
    "admin_key": {
        "type": "dict",
        "no_log": False,
        "options": {
            "name": {"type": "str", "default": "admin-key"},
            "secret": {"type": "str", "required": True, "no_log": True},
        },
    },
    "ca_file": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "server_log": {"type": "path"},
    "tensorrt_target": {
        "type": "dict",
        "options": {"version": {"type": "str"}, "compute_capability": {"type": "str"}},
    },
}

REPOSITORY: Spec = {
    "model_repository": {"type": "str", "fallback": (env_fallback, ["TRITON_MODEL_REPO"])},
    "state_dir": {"type": "path"},
    "s3": {
        "type": "dict",
        "options": {
            "access_key": {"type": "str", "no_log": False},
            "secret_key": {"type": "str", "no_log": True},
            "session_token": {"type": "str", "no_log": True},
            "profile": {"type": "str"},
            "region": {"type": "str"},
            "ca_file": {"type": "path"},
        },
    },
    "lock_timeout": {"type": "float", "default": 60.0},
}

POLICY: Spec = {
    "allowed_backends": {"type": "list", "elements": "str"},
    "allowed_paths": {"type": "list", "elements": "path"},
    "model_code": {"type": "str", "choices": ["allowed", "refused"], "default": "allowed"},
    "max_size": {"type": "str"},
    "require_digest": {"type": "bool", "default": False},
    "require_signature": {
        "type": "dict",
        "options": {
            "public_keys": {"type": "list", "elements": "str", "no_log": False},
            "ca_certificates": {"type": "list", "elements": "str"},
            "identities": {"type": "list", "elements": "str"},
            "sigstore": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "identity": {"type": "str", "required": True},
                    "issuer": {"type": "str", "required": True},
                },
            },
            "trust_config": {"type": "path"},
        },
    },
    "revoked_digests": {"type": "list", "elements": "str"},
    "revoked_keys": {"type": "list", "elements": "str", "no_log": False},
}

STATUS: Spec = {
    "registry_status": {"type": "str"},
}

ENVIRONMENTS: Spec = {
    "environments": {
        "type": "dict",
        "options": {
            "folder": {"type": "path"},
            "pythons": {"type": "list", "elements": "path"},
            "python_mirror": {"type": "str"},
            # Addresses of indexes may hold a password.
            "index_url": {"type": "str", "no_log": True},
            "extra_index_urls": {"type": "list", "elements": "str", "no_log": True},
            "find_links": {"type": "list", "elements": "str"},
            "no_index": {"type": "bool"},
            "source_distributions": {"type": "bool"},
            "container": {"type": "str"},
            "container_engine": {"type": "str"},
            "locks": {"type": "dict"},
        },
    },
}

TRAFFIC: Spec = {
    "drained": {"type": "bool", "default": False},
}

WAIT: Spec = {
    "timeout": {"type": "float", "default": 300.0},
    "load_timeout": {"type": "float"},
    "progress": {"type": "bool", "default": True},
}

MODEL: Spec = {
    "name": {"type": "str", "required": True},
    "model_uri": {"type": "str"},
    "alias": {"type": "str"},
    "state": {
        "type": "str",
        "choices": ["present", "absent", "unloaded", "rolled_back"],
        "default": "present",
    },
    "rollback_to": {"type": "str"},
    "undo": {"type": "bool", "default": False},
    "flavor": {
        "type": "str",
        "choices": ["triton", "onnx", "xgboost", "lightgbm", "sklearn", "pytorch"],
    },
    "serve_as": {
        "type": "str",
        "choices": ["auto", "native", "pyfunc"],
        "default": "auto",
    },
    "batch_requests": {"type": "bool"},
    "predict_timeout": {"type": "float", "default": 60.0},
    "config": {"type": "dict"},
    "instance_kind": {"type": "str", "choices": ["cpu", "gpu", "auto"]},
    "version_folders": {
        "type": "str",
        "choices": ["auto", "registry", "artifact"],
        "default": "auto",
    },
    "serve_versions": {"type": "int", "default": 1},
    "verify": {"type": "raw"},
    "verify_aside": {"type": "bool", "default": False},
    "swap": {
        "type": "str",
        "choices": ["overlap", "unload_first", "auto"],
        "default": "overlap",
    },
    "keep": {"type": "int", "default": 1},
    "adopt": {"type": "bool", "default": False},
    "check_files": {"type": "bool", "default": False},
    "depends_on": {"type": "list", "elements": "str"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
}


def wanted_model(params: dict[str, Any]) -> dict[str, Any]:
    """The part of a module's parameters which describes one model."""
    return {key: params[key] for key in MODEL}
