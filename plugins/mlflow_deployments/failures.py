# SPDX-License-Identifier: Apache-2.0
"""The core's errors as MLflow's callers expect them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from click import ClickException
from mlflow.exceptions import MlflowException

from ..module_utils._delivery.errors import (
    AlreadyDeployed,
    ArtifactError,
    ConfigError,
    DeadlineExceeded,
    Defect,
    DeliveryError,
    ForeignModel,
    InvalidOption,
    LoadPending,
    LockTimeout,
    NotFound,
    RegistryError,
    RegistryRefused,
    RegistryTimeout,
    RegistryUnreachable,
    ServerRefused,
    ServerTimeout,
    ServerUnreachable,
    as_delivery_error,
)
from ..module_utils._delivery.terminal import one_line

# The first class that fits counts, so children stand before their parents.
_CODES = (
    (Defect, "INTERNAL_ERROR"),
    (AlreadyDeployed, "RESOURCE_ALREADY_EXISTS"),
    (ForeignModel, "RESOURCE_CONFLICT"),
    (LockTimeout, "RESOURCE_CONFLICT"),
    (NotFound, "RESOURCE_DOES_NOT_EXIST"),
    (InvalidOption, "INVALID_PARAMETER_VALUE"),
    (ArtifactError, "INVALID_PARAMETER_VALUE"),
    (ConfigError, "INVALID_PARAMETER_VALUE"),
    (LoadPending, "DEADLINE_EXCEEDED"),
    (DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (RegistryTimeout, "DEADLINE_EXCEEDED"),
    (ServerTimeout, "DEADLINE_EXCEEDED"),
    (RegistryUnreachable, "TEMPORARILY_UNAVAILABLE"),
    (ServerUnreachable, "TEMPORARILY_UNAVAILABLE"),
)
_STATUS = {400: "INVALID_PARAMETER_VALUE", 403: "PERMISSION_DENIED", 404: "RESOURCE_DOES_NOT_EXIST"}


class TritonDeploymentError(MlflowException, ClickException):  # type: ignore[misc]
    """One sentence. Being click's exception too, MLflow's command line prints the sentence instead
    of a traceback.
    """

    def __init__(
        self, message: str, error_code: str, facts: dict[str, object] | None = None
    ) -> None:
        self.facts = facts or {}
        from mlflow.protos.databricks_pb2 import ErrorCode

        # ErrorCode is no mapping.
        known = error_code if error_code in ErrorCode.keys() else "INTERNAL_ERROR"  # noqa: SIM118
        super().__init__(message, ErrorCode.Value(known))


def code_of(error: DeliveryError) -> str:
    """The name of MLflow's error code."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, RegistryRefused) and error.code:
        return error.code
    if isinstance(error, RegistryError):
        return "INTERNAL_ERROR"
    if isinstance(error, ServerRefused):
        return _STATUS.get(error.status, "INVALID_STATE")
    return "INVALID_STATE"


def to_mlflow_error(error: DeliveryError) -> TritonDeploymentError:
    return TritonDeploymentError(str(error), code_of(error), error.facts)


@contextmanager
def report_failures() -> Iterator[None]:
    """Turn errors into MLflow's.

    Raises:
        TritonDeploymentError: with the sentence of the core; what led to it is in ``__context__``.
    """
    try:
        yield
    except MlflowException:
        raise
    except DeliveryError as error:
        raise to_mlflow_error(error) from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        said = one_line(f"{error.strerror or error}{where}")
        raise TritonDeploymentError(said, "IO_ERROR") from None
    except Exception as error:
        raise to_mlflow_error(as_delivery_error(error)) from None
