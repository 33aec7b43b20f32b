# SPDX-License-Identifier: Apache-2.0
"""MLflow's verbs on the delivery engine. Nothing is decided here that the modules decide
elsewhere.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import mlflow
from mlflow.deployments import BaseDeploymentClient
from mlflow.exceptions import MlflowException

from ..module_utils._delivery.domain.desired import DesiredModel
from ..module_utils._delivery.domain.fields import WrongShape, read_json
from ..module_utils._delivery.domain.journal import FolderSwap, S3Swap, begun_load
from ..module_utils._delivery.domain.record import Record
from ..module_utils._delivery.domain.uri import parse_model_uri
from ..module_utils._delivery.errors import (
    DeliveryError,
    InvalidOption,
    NotFound,
    as_delivery_error,
)
from ..module_utils._delivery.names import check_model_name
from ..module_utils._delivery.orchestration.inspection import Inspection
from ..module_utils._delivery.orchestration.target import Target
from ..module_utils._delivery.planning.versions import loaded_versions
from ..module_utils._delivery.registry.credentials import Credentials, use_credentials
from ..module_utils._delivery.repository.protocol import Repository
from ..module_utils._delivery.repository.s3.location import is_s3
from ..module_utils._delivery.repository.state_store import StateStore
from ..module_utils._delivery.terminal import lines, one_line
from ..module_utils._delivery.triton.address import Access
from ..module_utils._delivery.triton.server import TritonServer
from .failures import TritonDeploymentError, report_failures, to_mlflow_error
from .guide import other_plugins
from .targets import MODEL, TARGET_OPTIONS, profiles_path, read_options, read_target

if TYPE_CHECKING:  # list and get, which take as long as their imports, need neither
    from ..module_utils._delivery.orchestration.report import Result
    from .predict import Predictor

logger = logging.getLogger(__name__)
_REQUEST = (
    "config",
    "instance_kind",
    "version_folders",
    "serve_versions",
    "owner",
    "group",
    "mode",
)
_MOST_VALUES = 10_000
_other_plugins_were_named = threading.Event()


class TritonDeploymentClient(BaseDeploymentClient):
    """Deployments of MLflow models on Triton Inference Server. ``mlflow deployments help -t
    triton`` explains the targets.
    """

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)  # type: ignore[no-untyped-call]
        with report_failures():
            self._target = read_target(target_uri)
        self._predictor: Predictor | None = None
        self._first = threading.Lock()
        self._store: StateStore | None = None
        _say_other_plugins()

    # -- deployments -------------------------------------------------------------------------------

    def create_deployment(
        self,
        name: str,
        model_uri: str | os.PathLike[str],
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Deploy a model under a new name, and return when it is served.

        Args:
            model_uri: ``models:/name/1``, ``models:/name@alias``, ``models:/name/latest``,
                ``models:/m-…``, ``runs:/…`` or a folder, also as a ``pathlib.Path``.
            flavor: ``triton`` or one of MLflow's own (onnx, xgboost, …); read from the artifact
                when omitted.
            config: options of the module ``mlops.triton.triton_model``.
            endpoint: name of one server of a profile; all of them when omitted.

        Raises:
            MlflowException: the name exists in any form, or the deployment failed and nothing of it
                was left.
        """
        with report_failures():
            check_model_name(name)  # before the URI, whatever that is
            options = self._options(config, flavor)
            desired = DesiredModel.from_options(
                {**_model_options(options), "name": name, "model_uri": _absolute_uri(model_uri)}
            )
            return self._deliver(replace(desired, must_be_new=True), options, endpoint)

    def update_deployment(
        self,
        name: str,
        model_uri: str | os.PathLike[str] | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Bring a deployment to another model, other options, or both, and return when it is
        served.

        What is not given stays as it was deployed; an option that is null goes back to what the
        model's author has.

        Raises:
            MlflowException: no such deployment, or the update failed and the deployment before it
                is served as it was.
        """
        with report_failures():
            check_model_name(name)
            options = self._options(config, flavor)
            with self._inspection(options, endpoint) as there:
                record = there.record(name)
            if record is None and not (options.get("adopt") and model_uri):
                raise self._explain_absence(name, options)
            kept = _kept_options(record, with_alias=not model_uri) if record else {}
            uri = _absolute_uri(model_uri) or (record.model_uri if record else None)
            if not model_uri and record and options.get("flavor") not in (None, record.flavor):
                raise InvalidOption(
                    f"it was deployed with the flavor {record.flavor}; another one needs model_uri",
                    model=name,
                    step="update",
                    left="nothing was changed",
                )
            desired = DesiredModel.from_options(
                {**kept, **_model_options(options), "name": name, "model_uri": uri}
            )
            return self._deliver(replace(desired, keep_source=not model_uri), options, endpoint)

    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Unload a model from every server and remove its files; one that is not there is no
        error.
        """
        with report_failures():
            check_model_name(name)
            options = self._options(config, None)
            target = self._target.with_options(options)
            if target.urls(endpoint) != target.urls(None):
                raise InvalidOption(
                    f"the endpoints {', '.join(target.servers)} share one repository, so that a"
                    " deployment is deleted from all of them or from none: leave endpoint out",
                    model=name,
                    step="delete",
                    left="nothing was changed",
                )
            desired = DesiredModel.from_options(
                {**_model_options(options), "name": name, "state": "absent"}
            )
            self._run(desired, options, None)

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """What is deployed, whoever deployed it with this collection or with NVIDIA's plugin;
        sorted by name.
        """
        with report_failures(), self._inspection({}, endpoint) as there:
            return [entry for entry in self._entries(there, None) if entry]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """One deployment, with what each server serves of it and where record, disk and servers
        differ.

        Raises:
            MlflowException: no such deployment.
        """
        with report_failures(), self._inspection({}, endpoint) as there:
            found = self._entries(there, check_model_name(name))
            if not found:
                raise self._explain_absence(name, {})
            return _printable(found[0])

    def predict(
        self,
        deployment_name: str | None = None,
        inputs: Any = None,
        endpoint: str | None = None,
        df: Any = None,
    ) -> Any:
        """One inference.

        Args:
            inputs: a dictionary of arrays or lists, a DataFrame, a single array or text for a model
                with one input, or any of these under the key ``inputs``.
            endpoint: which server of a profile; the first when omitted.
            df: the name that ``inputs`` has in NVIDIA's plugin.

        Returns:
            A DataFrame with one column ``outputs``, indexed by tensor names; without pandas a
                dictionary of the same form.
        """
        try:  # without a context manager: a tenth of what this adds to an inference
            url = self._target.urls(endpoint)[0]
            name = (
                self._only_deployment(endpoint)
                if deployment_name is None
                else check_model_name(deployment_name)
            )
            return (self._predictor or self._make_predictor()).predict(
                url, name, df if inputs is None else inputs
            )
        except MlflowException:
            raise
        except Exception as error:
            raise to_mlflow_error(as_delivery_error(error, "predict")) from None

    def _make_predictor(self) -> Predictor:
        from .predict import Predictor

        with self._first:
            if self._predictor is None:
                self._predictor = Predictor(self._connect, self._stamp)
            return self._predictor

    # -- endpoints ---------------------------------------------------------------------------------

    def list_endpoints(self) -> list[dict[str, Any]]:
        """The servers of the target."""
        with report_failures():
            return [self._endpoint(name) for name in self._target.servers]

    def get_endpoint(self, endpoint: str) -> dict[str, Any]:
        """One server of the target."""
        with report_failures():
            self._target.urls(endpoint)
            return self._endpoint(endpoint)

    def create_endpoint(self, name: str, config: Mapping[str, Any] | None = None) -> NoReturn:
        """Refused."""
        raise _endpoints_error()

    def update_endpoint(self, endpoint: str, config: Mapping[str, Any] | None = None) -> NoReturn:
        """Refused."""
        raise _endpoints_error()

    def delete_endpoint(self, endpoint: str) -> NoReturn:
        """Refused."""
        raise _endpoints_error()

    def explain(
        self, deployment_name: str | None = None, df: Any = None, endpoint: str | None = None
    ) -> NoReturn:
        """Refused: Triton serves inferences alone."""
        raise TritonDeploymentError(
            "Triton computes no explanations of predictions.", "NOT_IMPLEMENTED"
        )

    def _endpoint(self, name: str) -> dict[str, Any]:
        with self._connect(self._target.servers[name]) as server:
            return {"name": name, "url": server.url, "live": server.is_live()}

    # -- between MLflow and the core ---------------------------------------------------------------

    def _options(self, config: Mapping[str, Any] | None, flavor: str | None) -> dict[str, Any]:
        if not isinstance(config or {}, Mapping):
            raise InvalidOption(
                "config is not a mapping of options to their values",
                step="read the options",
                left="nothing was changed",
            )
        given = {**({"flavor": flavor} if flavor else {}), **(config or {})}
        return read_options(given, {**TARGET_OPTIONS, **MODEL}, "a deployment")

    def _delivery_target(self, options: Mapping[str, Any], endpoint: str | None) -> Target:
        target = self._target.with_options(options)
        named = dict(target.options)
        # Asked now and not when the client was made: a notebook may set it at any time.
        if named.get("tracking_uri") is None and mlflow.is_tracking_uri_set():
            named["tracking_uri"] = mlflow.get_tracking_uri()
        made = Target.from_options({**named, **target.addresses(endpoint)})
        # Without a list, on the host of MLflow, its own folders are read as by MLflow's client.
        return replace(made, beside_mlflow=named.get("artifact_folders") is None)

    def _inspection(self, options: Mapping[str, Any], endpoint: str | None) -> Inspection:
        return Inspection(self._delivery_target(options, endpoint))

    def _run(
        self, desired: DesiredModel, options: Mapping[str, Any], endpoint: str | None
    ) -> Result:
        from ..module_utils._delivery.orchestration.delivery import Delivery
        from ..module_utils._delivery.progress import show_progress

        credentials = Credentials.from_options(self._target.with_options(options).options)
        try:
            with (
                use_credentials(credentials),
                Delivery(self._delivery_target(options, endpoint)) as delivery,
                show_progress(self._target.with_options(options).options.get("progress")),
            ):
                result = delivery.deliver([desired])[0]
        finally:
            if self._predictor:
                self._predictor.forget(desired.name)
        for warning in result.warnings:
            logger.warning("%s: %s", desired.name, one_line(warning))
        for warning in delivery.warnings:
            logger.warning("%s", one_line(warning))
        if result.error:
            raise result.error
        return result

    def _deliver(
        self, desired: DesiredModel, options: Mapping[str, Any], endpoint: str | None
    ) -> dict[str, Any]:
        record = self._run(desired, options, endpoint).record
        if record is None:
            raise RuntimeError("a delivery that succeeded has a record")
        entry = _entry(
            record,
            self._delivery_target(options, endpoint).repository,
            max(loaded_versions(record), default=None),
            "READY",
        )
        return _printable({**entry, "deploy_id": record.deploy_id})

    def _explain_absence(self, name: str, options: Mapping[str, Any]) -> DeliveryError:
        with self._inspection(options, None) as there:
            repository, meta = there.target.repository, _read_meta(there.repository, name)
            journal = there.repository.store.journal(name)
        if isinstance(journal, (FolderSwap, S3Swap)):
            load = begun_load(journal)
            what = f"its load has been pending since {load.since}" if load else "it was interrupted"
            return NotFound(
                f"its first deployment has not ended ({what}): create it again, which goes on",
                model=name,
                step="find the deployment",
                left="nothing was changed",
            )
        if meta:
            return NotFound(
                "NVIDIA's plugin deployed it; update it with model_uri and -C adopt=true to take it"
                " over",
                model=name,
                step="find the deployment",
                left="nothing was changed",
            )
        return NotFound(
            f"the repository {repository} has no such deployment",
            model=name,
            step="find the deployment",
        )

    def _entries(self, there: Inspection, name: str | None) -> list[dict[str, Any]]:
        repository = there.target.repository
        statuses = there.status(None if name is None else [name])
        known = {status["name"] for status in statuses if not status["foreign"]} - {name}
        others = (
            [one for one in there.repository.names() if one not in known]
            if name is None
            else [name]
        )
        theirs = {one: meta for one in others if (meta := _read_meta(there.repository, one))}
        unseen = set(theirs) - {status["name"] for status in statuses} if name is None else set()
        statuses += there.status(sorted(unseen)) if unseen else []
        entries = []
        for status in sorted(statuses, key=lambda one: str(one["name"])):
            if status["state"] == "unknown":
                if name is not None:
                    there.record(name)  # says what to do where it is the record that is not read
                entries.append(_unknown_entry(status, repository))
                continue
            record = there.record(status["name"])
            meta = theirs.get(status["name"])
            if record is not None:
                entries.append(_describe(record, repository, status, name is not None))
            elif meta and any(server["ready_versions"] for server in status["servers"]):
                entries.append(_peer_entry(meta, repository, status))
        return entries

    def _only_deployment(self, endpoint: str | None) -> str:
        if endpoint is None:
            raise InvalidOption("predict needs the name of a deployment", step="predict")
        names = [entry["name"] for entry in self.list_deployments(endpoint)]
        if len(names) != 1:
            raise InvalidOption(
                f"the endpoint {endpoint} serves {', '.join(names) or 'no deployment'}: name one",
                step="predict",
            )
        return str(names[0])

    def _connect(self, url: str) -> TritonServer:
        options = self._target.options
        return TritonServer(
            url, float(options.get("timeout") or 300.0), Access.from_options(options)
        )

    def _stamp(self, name: str) -> object:
        """Changes with the record of a deployment; None where the repository is not on this
        host.
        """
        model_repository = str(self._target.options.get("model_repository") or "")
        if not model_repository or is_s3(
            model_repository
        ):  # a question for each inference would cost as much as the inference
            return None
        try:
            if self._store is None:
                self._store = StateStore(model_repository, self._target.options.get("state_dir"))
            return self._store.stamp(name)
        except DeliveryError:
            return None


def _endpoints_error() -> TritonDeploymentError:
    return TritonDeploymentError(
        "The endpoints are the servers of a profile, and are changed in"
        f" {profiles_path(os.environ)}. Nothing was changed.",
        "NOT_IMPLEMENTED",
    )


def _absolute_uri(model_uri: str | os.PathLike[str] | None) -> str | None:
    """A folder by its whole path: the record is read where another folder is the current one."""
    if not model_uri:
        return None
    if not isinstance(model_uri, (str, os.PathLike)):
        raise InvalidOption(
            f"model_uri {model_uri!r} is neither a text nor a path",
            step="read the options",
            left="nothing was changed",
        )
    uri = parse_model_uri(os.fsdecode(model_uri))
    if uri.kind != "folder" or "://" in uri.text or uri.text.lower().startswith("file:"):
        return uri.text
    return os.path.abspath(os.path.expanduser(uri.text))


def _model_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in MODEL}


def _kept_options(record: Record, with_alias: bool) -> dict[str, Any]:
    """The options that a deployment has, for an update that does not name them."""
    kept = {key: value for key, value in record.request.items() if key in _REQUEST}
    return {
        **kept,
        "deployment_set": record.deployment_set,
        **({"alias": record.alias} if with_alias else {}),
    }


def _entry(record: Record, repository: str, version: int | None, state: str) -> dict[str, Any]:
    """The keys that scripts written for NVIDIA's plugin read, then ours."""
    return {
        "name": record.name,
        "version": "" if version is None else str(version),
        "state": state,
        "triton_model_path": os.path.join(repository, record.name),
        "mlflow_model_uri": record.pinned_uri,
        "flavor": record.flavor,
        "model_uri": record.model_uri,
        "registry_name": record.registry_name,
        "registry_version": record.registry_version,
        "alias": record.alias,
    }


def _describe(
    record: Record, repository: str, status: Mapping[str, Any], whole: bool
) -> dict[str, Any]:
    ready = {version for server in status["servers"] for version in server["ready_versions"]}
    rows = [row for server in status["servers"] for row in server["versions"] if row["state"]]
    state = (
        "READY"
        if status["ready"]
        else next((row["state"] for row in rows if row["state"] != "READY"), "UNAVAILABLE")
    )
    entry = _entry(record, repository, max(ready or loaded_versions(record), default=None), state)
    more = {
        key: status[key]
        for key in (
            *("deployed_at", "deployed_by", "size", "digest", "code"),
            *("served_as", "pyfunc", "servers", "drift"),
        )
    }
    proof = {
        "deploy_id": record.deploy_id,
        "verified": record.verified,
        "proof": dict(record.proof) if record.proof else None,
        "signed_by": status["signed_by"],
        "trusted": status["trusted"],
    }
    return {**entry, **proof, **(more if whole else {})}


def _peer_entry(
    meta: Mapping[str, Any], repository: str, status: Mapping[str, Any]
) -> dict[str, Any]:
    ready = max(version for server in status["servers"] for version in server["ready_versions"])
    return {
        "name": status["name"],
        "version": str(ready),
        "state": "READY",
        "triton_model_path": (
            meta.get("triton_model_path") or os.path.join(repository, status["name"])
        ),
        "mlflow_model_uri": meta.get("mlflow_model_uri"),
        "flavor": meta.get("flavor"),
    }


def _unknown_entry(status: Mapping[str, Any], repository: str) -> dict[str, Any]:
    """A deployment whose record cannot be understood; ``drift`` says why, and what to do."""
    return {
        "name": status["name"],
        "version": "",
        "state": "UNKNOWN",
        "triton_model_path": os.path.join(repository, status["name"]),
        "drift": status["drift"],
    }


def _printable(entry: dict[str, Any]) -> dict[str, Any]:
    """MLflow's command line prints the texts of an entry as they are; what is nested in it, as
    Python would write it.
    """
    return {key: lines(value) if isinstance(value, str) else value for key, value in entry.items()}


def _read_meta(repository: Repository, name: str) -> dict[str, Any] | None:
    """What NVIDIA's plugin noted beside a model."""
    try:
        found = read_json(repository.meta(name) or b"null", _MOST_VALUES)
    except WrongShape:
        return None
    return found if isinstance(found, dict) else None


def _say_other_plugins() -> None:
    if not _other_plugins_were_named.is_set():
        _other_plugins_were_named.set()
        for sentence in other_plugins():
            logger.warning(sentence)
