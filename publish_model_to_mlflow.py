#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Publish a model folder to the MLflow Model Registry, with the command line of the Morpheus guide.

    python publish_model_to_mlflow.py --model_name sid-minibert-onnx --model_directory
    /models/sid-minibert-onnx --flavor triton

Where pip installed the wheel, it is the command publish_model_to_mlflow. The registry is
MLFLOW_TRACKING_URI. What is published already is not published again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

# The command runs from a checkout, wherever it is called from; nothing need be installed but the
# libraries.
sys.path.insert(0, str(Path(__file__).resolve().parent / "plugins" / "module_utils"))

from _delivery.artifacts.places import ArtifactPlaces
from _delivery.errors import InvalidOption, as_delivery_error
from _delivery.planning.policy_options import folders
from _delivery.progress import show_progress
from _delivery.publication.publication import (
    DesiredPublication,
    apply_publication,
    plan_publication,
)
from _delivery.registry.registry import Registry
from _delivery.terminal import one_line


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--model_name", required=True, help="the registered model")
    made.add_argument(
        "--model_directory",
        required=True,
        help=(
            "a folder in Triton's layout, or one model file; for flavor onnx also a folder with"
            " model.onnx"
        ),
    )
    made.add_argument("--flavor", required=True, choices=("triton", "onnx"))
    made.add_argument(
        "--alias",
        action="append",
        default=[],
        help="points at this version afterwards; can be given several times",
    )
    made.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a tag of the version; can be given several times",
    )
    made.add_argument("--description", help="the version's description, in Markdown")
    made.add_argument(
        "--config",
        help=(
            "fields of config.pbtxt to replace, as JSON: what a plan or a TorchScript module does"
            " not tell"
        ),
    )
    _add_signing(made)
    made.add_argument(
        "--artifact_folders",
        action="append",
        metavar="FOLDER",
        help=(
            "a folder of this host in which MLflow may say that artifacts lie; can be given several"
            " times (default: the folders that an MLflow on this host makes itself)"
        ),
    )
    made.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        help="seconds that a network step may take (default: %(default)s)",
    )
    made.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="lines on standard error on what takes long (default: where that is a terminal)",
    )
    return made


def _add_signing(made: argparse.ArgumentParser) -> None:
    made.add_argument("--sign_key", help="file with the private key that signs, in PEM form")
    made.add_argument(
        "--sign_key_env",
        metavar="VARIABLE",
        help="variable of the environment that holds the private key, in place of --sign_key",
    )
    made.add_argument(
        "--sign_password_env",
        metavar="VARIABLE",
        help="variable of the environment that holds the private key's password",
    )
    made.add_argument("--sign_certificate", help="file with the certificate of the private key")
    made.add_argument(
        "--sign_chain",
        action="append",
        help=(
            "file with certificates between that one and the authority's; can be given several"
            " times"
        ),
    )
    made.add_argument(
        "--sign_token_env",
        metavar="VARIABLE",
        help="variable of the environment that holds a token with which Sigstore signs",
    )


def read_tags(given: list[str]) -> dict[str, str]:
    tags = dict(pair.partition("=")[::2] for pair in given)
    if not all(tags) or not all("=" in pair for pair in given):
        raise InvalidOption("--tag is KEY=VALUE", step="read the options")
    return tags


def read_config(given: str | None) -> dict[str, Any] | None:
    try:
        config = json.loads(given) if given else None
    except ValueError as error:
        raise InvalidOption(f"--config is not JSON ({error})", step="read the options") from None
    if config is not None and not isinstance(config, dict):
        raise InvalidOption(
            '--config is not a mapping such as {"max_batch_size": 8}', step="read the options"
        )
    return config


def read_sign(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """What the options say of signing; None where they say nothing."""
    given = {
        "private_key": arguments.sign_key,
        "private_key_env": arguments.sign_key_env,
        "password_env": arguments.sign_password_env,
        "certificate": arguments.sign_certificate,
        "certificate_chain": arguments.sign_chain,
        "identity_token_env": arguments.sign_token_env,
    }
    found = {key: value for key, value in given.items() if value is not None}
    return found or None


def publish(arguments: argparse.Namespace) -> str:
    """Publish, and return where the files are."""
    path = Path(arguments.model_directory)
    if arguments.flavor == "onnx" and path.suffix != ".onnx":
        path = path / "model.onnx"
    # Without a list, on the host of MLflow its own folders are written as by MLflow's client.
    listed = folders("--artifact_folders", arguments.artifact_folders)
    places = ArtifactPlaces(listed or (), beside_mlflow=listed is None)
    registry = Registry(None, arguments.timeout, places=places)
    with show_progress(arguments.progress):
        plan = plan_publication(
            registry,
            DesiredPublication(
                arguments.model_name,
                str(path),
                tuple(arguments.alias),
                read_tags(arguments.tag),
                arguments.description,
                config=read_config(arguments.config),
                sign=read_sign(arguments),
            ),
        )
        published = apply_publication(registry, plan)
    for line in (
        *plan.actions,
        *published.warnings,
        f"models:/{published.name}/{published.version}",
    ):
        print(one_line(line), file=sys.stderr)
    return published.artifact_uri


def main() -> int:
    # This process is the command's own, so MLflow's minutes of retries can be switched off in it.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    try:
        print(one_line(publish(parser().parse_args())))
    except Exception as error:  # one that nobody foresaw is a sentence too
        print(f"error: {as_delivery_error(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
