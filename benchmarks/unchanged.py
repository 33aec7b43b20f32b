# SPDX-License-Identifier: Apache-2.0
"""What does a list of unchanged models cost, next to a playbook with a single ping?

    .venv/control/bin/python benchmarks/unchanged.py [--models 1 10 100 1000] [--runs 5] [--ensembles]

Real Triton, models from folders of this host, and from a real MLflow with --mlflow (aliases resolved in each run, or
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

import models  # noqa: E402
import pairs  # noqa: E402
import servers  # noqa: E402


def playbook(folder: Path, name: str, task: dict[str, object]) -> list[str]:
    path = folder / f"{name}.yml"
    path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]), encoding="utf-8")
    return [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local",
            "-e", f"ansible_python_interpreter={sys.executable}", str(path)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[100])
    parser.add_argument("--ensembles", action="store_true",
                        help="all but one are ensembles of that one, which take no process each: needed for a thousand")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mlflow", choices=["alias", "version"], help="models:/name@champion or models:/name/1 instead of folders")
    given = parser.parse_args()
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0",
                   "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".dev")}  # and not what lies in ~/.ansible/collections
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        (folder / "models").mkdir()
        triton = stack.enter_context(servers.triton_server(
            folder / "triton", repository=folder / "models", extra_args=["--disable-auto-complete-config"]))
        options = {"triton_url": triton.url.removeprefix("http://"), "model_repository": str(folder / "models")}
        largest = max(given.models)
        if given.ensembles:
            made = [models.make_python(folder / "source", "model-0000")]
            made += [models.make_ensemble(folder / "source", f"model-{number:04d}", made[:1]) for number in range(1, largest)]
        else:
            made = [models.make_python(folder / "source", f"model-{number:04d}", identity=number) for number in range(largest)]
        wanted = [{"name": sample.name, "model_uri": str(sample.folder)} for sample in made]
        if given.mlflow:
            mlflow = stack.enter_context(servers.mlflow_server(folder / "mlflow"))
            options["tracking_uri"] = mlflow.url
            listed = [{"name": sample.name, "path": str(sample.folder), "aliases": ["champion"]} for sample in made]
            task = {"mlops.triton.mlflow_publish": {"models": listed, "tracking_uri": mlflow.url}}
            pairs.command(playbook(folder, "publish", task), environment)()
            which = {"alias": "@champion", "version": "/1"}[given.mlflow]
            wanted = [{"name": sample.name, "model_uri": f"models:/{sample.name}{which}"} for sample in made]
        ping = playbook(folder, "ping", {"ansible.builtin.ping": {}})
        whole = playbook(folder, "whole", {"mlops.triton.triton_models": {**options, "models": wanted}})
        pairs.command(whole, environment)()
        loads = sum(triton.loads(sample.name) for sample in made)
        for count in given.models:
            deliver = playbook(folder, "deliver", {"mlops.triton.triton_models": {**options, "models": wanted[:count]}})
            measured = pairs.measure(pairs.command(deliver, environment), pairs.command(ping, environment), given.runs)
            print(measured.table(f"triton_models, {count} unchanged", "ping"))
            print(f"each of {count} costs {100 * (statistics.median(measured.ratios) - 1) / count:.2f} % of a ping playbook, "
                  "what the module costs without any among them")
        print(f"loads during the measurement: {sum(triton.loads(sample.name) for sample in made) - loads}")


if __name__ == "__main__":
    main()
