# SPDX-License-Identifier: Apache-2.0
"""What does a list of unchanged models cost, next to a playbook with a single ping?

    .venv/control/bin/python benchmarks/unchanged.py [--models 1 10 100 1000] [--runs 5]
    [--ensembles]

Real Triton, models from folders of this host, and from a real MLflow with --mlflow (aliases
resolved in each run, or
the versions that deploy_models.yml pins them to).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).resolve().parent)]

import pairs  # noqa: E402
from support import models, servers  # noqa: E402


def playbook(folder: Path, name: str, task: dict[str, object]) -> list[str]:
    path = folder / f"{name}.yml"
    path.write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]),
        encoding="utf-8",
    )
    return [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        str(path),
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, nargs="+", default=[100])
    parser.add_argument(
        "--ensembles",
        action="store_true",
        help=(
            "all but one are ensembles of that one, which take no process each: needed for a"
            " thousand"
        ),
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--mlflow",
        choices=["alias", "version"],
        help="models:/name@champion or models:/name/1 instead of folders",
    )
    return parser.parse_args()


def make_models(source: Path, count: int, ensembles: bool) -> list[models.Sample]:
    if not ensembles:
        return [
            models.make_python(source, f"model-{number:04d}", identity=number)
            for number in range(count)
        ]
    made = [models.make_python(source, "model-0000")]
    made += [
        models.make_ensemble(source, f"model-{number:04d}", made[:1]) for number in range(1, count)
    ]
    return made


def publish(folder: Path, url: str, made: list[models.Sample], environment: dict[str, str]) -> None:
    """Register all of them in the MLflow at this URL, each with the alias champion."""
    listed = [
        {"name": sample.name, "path": str(sample.folder), "aliases": ["champion"]}
        for sample in made
    ]
    task: dict[str, object] = {
        "mlops.triton.mlflow_publish": {"models": listed, "tracking_uri": url}
    }
    pairs.command(playbook(folder, "publish", task), environment)()


def deliver(
    folder: Path, name: str, options: dict[str, str], wanted: list[dict[str, str]]
) -> list[str]:
    return playbook(folder, name, {"mlops.triton.triton_models": {**options, "models": wanted}})


def report(measured: pairs.Pairs, count: int) -> None:
    print(measured.table(f"triton_models, {count} unchanged", "ping"))
    print(
        f"each of {count} costs"
        f" {100 * (statistics.median(measured.ratios) - 1) / count:.2f} % of a ping"
        " playbook, what the module costs without any among them"
    )


def main() -> None:
    given = arguments()
    environment = {
        **os.environ,
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".dev"),
    }  # and not what lies in ~/.ansible/collections
    with tempfile.TemporaryDirectory() as target, contextlib.ExitStack() as stack:
        folder = Path(target)
        (folder / "models").mkdir()
        triton = stack.enter_context(
            servers.triton_server(
                folder / "triton",
                repository=folder / "models",
                extra_args=["--disable-auto-complete-config"],
            )
        )
        options = {
            "triton_url": triton.url.removeprefix("http://"),
            "model_repository": str(folder / "models"),
        }
        made = make_models(folder / "source", max(given.models), given.ensembles)
        uris = [str(sample.folder) for sample in made]
        if given.mlflow:
            mlflow = stack.enter_context(servers.mlflow_server(folder / "mlflow"))
            options["tracking_uri"] = mlflow.url
            publish(folder, mlflow.url, made, environment)
            which = {"alias": "@champion", "version": "/1"}[given.mlflow]
            uris = [f"models:/{sample.name}{which}" for sample in made]
        wanted = [{"name": sample.name, "model_uri": uri} for sample, uri in zip(made, uris)]
        ping = pairs.command(playbook(folder, "ping", {"ansible.builtin.ping": {}}), environment)
        pairs.command(deliver(folder, "whole", options, wanted), environment)()
        loads = sum(triton.loads(sample.name) for sample in made)
        for count in given.models:
            delivery = deliver(folder, "deliver", options, wanted[:count])
            report(pairs.measure(pairs.command(delivery, environment), ping, given.runs), count)
        print(
            "loads during the measurement:"
            f" {sum(triton.loads(sample.name) for sample in made) - loads}"
        )


if __name__ == "__main__":
    main()
