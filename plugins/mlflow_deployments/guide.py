# SPDX-License-Identifier: Apache-2.0
"""What ``mlflow deployments help -t triton`` prints. Nothing heavy is imported here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import entry_points

from .targets import MODEL, PROFILES_VARIABLE, TARGET_OPTIONS, Option, profiles_path

TARGET = "triton"
OURS = "ansible_collections.mlops.triton.plugins.mlflow_deployments"

_MEANING = {
    "triton_url": "servers, separated by commas: host:port, http://, https://, grpc:// or grpcs://",
    "admin_key": (
        "{name: admin-key, secret_env: VARIABLE} where the model-repository API is restricted"
    ),
    "load_url": (
        "where loads go: grpc://host:port of each server, which makes no other client wait; the"
        " servers' own addresses when omitted"
    ),
    "metrics_url": (
        "where the servers' metrics are, http://host:port of each: memory of their GPUs, and which"
        " of them answered"
    ),
    "ca_file": "certificates to trust for https and grpcs",
    "client_cert": "this client's certificate, for a server that asks for one",
    "client_key": "the private key of client_cert",
    "model_repository": (
        "Triton's model repository, a folder of this host or s3://bucket/prefix,"
        " s3://http://host:port/bucket/prefix"
    ),
    "server_log": (
        "the server's log file on this host, which has causes of failed loads that answers omit"
    ),
    "tensorrt_target": (
        "TensorRT and GPUs of the servers: {version: '10.5', compute_capability: '9.0'}"
    ),
    "s3": (
        "{profile: NAME, region: NAME, ca_file: FILE, access_key: KEY, secret_key_env: VARIABLE}"
        " for a repository in S3; omitted keys come from AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY"
    ),
    "environments": (
        "how Python environments of models are made: {folder: FOLDER, pythons: [FILE],"
        " index_url_env: VARIABLE, extra_index_urls: [URL], find_links: [FOLDER], no_index: true,"
        " source_distributions: false, python_mirror: URL, container: NAME, container_engine: URL,"
        " locks: {KEY: LOCK}}"
    ),
    "state_dir": "records, locks and retained copies; <repository>.mlops-triton when omitted",
    "tracking_uri": "the MLflow server",
    "registry_uri": "the model registry, where it is another one",
    "mlflow_username": "user of the MLflow servers (MLFLOW_TRACKING_USERNAME)",
    "mlflow_password": (
        "their password (MLFLOW_TRACKING_PASSWORD); mlflow_password_env=VARIABLE keeps it out of"
        " the list of processes"
    ),
    "mlflow_token": (
        "a token instead of both (MLFLOW_TRACKING_TOKEN); mlflow_token_env=VARIABLE as above"
    ),
    "mlflow_ca_file": "certificates to trust for https (MLFLOW_TRACKING_SERVER_CERT_PATH)",
    "mlflow_client_cert": (
        "this client's certificate for the MLflow servers (MLFLOW_TRACKING_CLIENT_CERT_PATH)"
    ),
    "mlflow_client_key": "its private key, where that file does not have it too",
    "artifact_folders": "folders of this host in which the registry may say that artifacts lie",
    "timeout": "seconds that any one network step may take (300)",
    "load_timeout": ("seconds that a load may take; the larger of timeout and 1800 when omitted"),
    "drained": "no client sends requests to the servers now, so that swap=auto may unload (false)",
    "lock_timeout": "seconds to wait for another run that changes the same model (60)",
    "progress": "progress lines on standard error (when omitted, where that is a terminal)",
    "allowed_backends": (
        "Triton's backends that may be used, separated by commas; all when omitted (python runs"
        " code of the artifact)"
    ),
    "allowed_paths": "folders into which a model's configuration may point, beside its own",
    "model_code": "whether code from the registry may run: allowed or refused (allowed)",
    "max_size": "maximum size of a model's files, such as 2GiB",
    "require_digest": "refuse models without their publisher's manifest (false)",
    "require_signature": (
        "refuse models that none of these signed: {public_keys: [file]}, or {ca_certificates:"
        " [file], identities: [name]}"
    ),
    "revoked_digests": "digests of manifests or files that are not trusted any more",
    "revoked_keys": "keys of signers that are not trusted any more, by their SHA-256",
    "registry_status": (
        "a name for this target, under which the registry shows what is deployed; when omitted,"
        " the registry is not changed"
    ),
    "alias": "the alias that model_uri was resolved from, kept in the record",
    "flavor": "the same as --flavor; read from the artifact when omitted",
    "config": "fields that replace those of the author's config.pbtxt, such as {max_batch_size: 8}",
    "instance_kind": "where instances run, in place of what the author's configuration says",
    "version_folders": (
        "what gives the Triton version: the registry version or the artifact's folders"
    ),
    "serve_versions": "number of registry versions to serve side by side (1)",
    "verify": (
        "an inference that proves the deployment: {inputs: {x: [[1]]}, outputs: {y: [[2]]},"
        " tolerance: 0.001}; without tolerance whole numbers must be equal, and floats to 0.0001"
    ),
    "serve_as": (
        "what answers for the model: native (a backend of Triton), pyfunc (MLflow's own, with the"
        " environment that it was logged with) or auto (auto)"
    ),
    "batch_requests": (
        "rows of several requests may become one call of pyfunc (of flavors that are known to"
        " answer each row by itself)"
    ),
    "predict_timeout": "seconds that one call of pyfunc may take (60)",
    "verify_aside": (
        "prove a new deployment under another name before it takes the place of the old one (false)"
    ),
    "swap": (
        "whether the old deployment serves while the new one is loaded: overlap, unload_first or"
        " auto (overlap)"
    ),
    "keep": "number of previous deployments to retain for rollbacks (1)",
    "adopt": "take over a model of this name that this collection did not deploy (false)",
    "check_files": "hash the deployed files to find changes (false)",
    "depends_on": "models that this one calls, separated by commas, for the order of a list",
    "owner": "owner of the model's files",
    "group": "group of the model's files",
    "mode": "their mode, such as 0644",
}

_HELP = """\
Deploy models from an MLflow registry to NVIDIA Triton Inference Server, which was started with
--model-control-mode=explicit.

Targets (-t)
  triton                             the server of TRITON_URL, else localhost:8000
  triton://host:8000                 another server; several: triton://a:8000,b:8000
  triton://host:8001?protocol=grpc   protocol is http (default), https, grpc or grpcs
  triton:/<profile>                  servers with names, from {profiles}
  Options of the target may follow: triton://host:8000?model_repository=/models&timeout=60

Environment
  TRITON_URL, TRITON_MODEL_REPO, MLFLOW_TRACKING_URI; {variable} names another file of profiles.
  An option with -C wins over the target's, the target's over its profile's, the profile's over the
  environment.

Profiles
  production:
    servers:                         # the endpoints; they share the one repository
      gpu-1: http://gpu-1:8000
      gpu-2: grpcs://gpu-2:8001
    model_repository: /srv/triton/models
    tracking_uri: http://mlflow:5000
    admin_key: {{name: admin-key, secret_env: TRITON_ADMIN_KEY}}
    ca_file: /etc/ssl/certs/our-ca.pem

Commands
  create   a new deployment; refuses a name that exists in any form
  update   another model (-m), other options (-C), or both; what is not given stays,
           -C option=null clears it
  delete   unloads the model and removes its files; no error where there is none
  list, get, predict (--input-path FILE.json with tensor names as keys)
  run-local   starts Triton from PyPI (nvidia-pytriton) on this host with this one model, until
           Ctrl-C; further options: server_python (the Python that has nvidia-pytriton),
           http_port (8000), grpc_port (8001)
  --flavor is triton, onnx, xgboost, lightgbm, sklearn or pytorch, and found in the artifact when
  omitted. --endpoint names one server of a profile.
  Each command returns when every server serves what was asked for, proven by the deploy id in what
  it serves. When a deployment fails, the model before it is put back.

Options for the model (-C key=value; the value is YAML)
{model}

Options for the target (-C key=value, in the target or in a profile)
{target}

Examples
  mlflow deployments create -t triton --flavor triton --name fraud -m models:/fraud/1
  mlflow deployments update -t triton --name fraud -m models:/fraud@champion -C instance_kind=cpu
  mlflow deployments update -t triton --name fraud -C 'config={{max_batch_size: 16}}'
  mlflow deployments get -t triton:/production --name fraud
"""


def target_help() -> str:
    """The text for the command line, and what is wrong with the installation before it."""
    notes = "".join(f"Note: {sentence}\n\n" for sentence in other_plugins())
    return notes + _HELP.format(
        profiles=profiles_path(os.environ),
        variable=PROFILES_VARIABLE,
        model=_list_options(MODEL),
        target=_list_options(TARGET_OPTIONS),
    )


def _list_options(options: Mapping[str, Option]) -> str:
    lines = []
    for name, option in options.items():
        choices = f" ({', '.join(option.choices)})" if option.choices else ""
        lines.append(f"  {name:<18}  {_MEANING[name]}{choices}")
    return "\n".join(lines)


def other_plugins() -> list[str]:
    """A sentence where another package has the same target: MLflow keeps one of them and does not
    say which.
    """
    found = {
        entry.value: entry.dist.name if entry.dist else entry.value
        for entry in entry_points(group="mlflow.deployments")
        if entry.name == TARGET
    }
    others = [name for value, name in found.items() if value != OURS]
    if not others:
        return []
    sentence = (
        f"{', '.join(sorted(others))} has the deployment target '{TARGET}' too, and MLflow uses the"
        f" one that it finds last; remove it with pip uninstall {' '.join(sorted(others))}"
    )
    return [sentence]
