# SPDX-License-Identifier: Apache-2.0
"""Days of operation on the hosts of scenario fleet: what an operator asks for, forgets and gets
wrong after the first day.

    story.py publish IDENTITY     the next version of each model
    story.py verify [CHAPTER …]   the whole story, or some of it; prints a line for each chapter
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fleet"))

from hosts import HOSTS, REGISTRY, Models, deploy, ends, extra, tell, watched

FLEET = Models(("churn", "fraud"))
# Where nothing has to show the order of the hosts, they take their turns at the same time.
AT_ONCE = extra(triton_serial=[len(HOSTS)])


def version(name: str) -> int:
    """The registry version that is the champion now."""
    where = f"{REGISTRY}/api/2.0/mlflow/registered-models/alias?name={name}&alias=champion"
    with urllib.request.urlopen(where, timeout=30) as answer:
        return int(json.load(answer)["model_version"]["version"])


def told_of(host: str) -> dict[str, dict[str, object]]:
    """What module triton_model_info says of the models of a host, asked whether they answer."""
    variables = {
        "triton_url": "127.0.0.1:8000",
        "model_repository": "/opt/triton_models",
        "names": list(FLEET.names),
        "verify": True,
    }
    words = ["ansible", "-i", os.environ["MOLECULE_INVENTORY_FILE"], host]
    words += ["-m", "mlops.triton.triton_model_info", "-a", json.dumps(variables)]
    words += ["-e", "ansible_python_interpreter=/opt/venvs/client/bin/python"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.partition("=>")[2])["models"]
    return {model["name"]: model for model in found}


def goes_back_and_forth() -> str:
    first = version("churn")
    FLEET.publish(2)
    ends(deploy("deploy_models", *AT_ONCE), 0, "changed, verified")
    FLEET.served(others=2)
    back = extra(triton_models_to_roll_back=list(FLEET.names))
    ends(deploy("rollback_models", *AT_ONCE, *back), 0, "changed, verified")
    FLEET.served(others=1)
    ends(deploy("rollback_models", *AT_ONCE, *back, *extra(triton_rollback_to=first + 1)), 0)
    FLEET.served(others=2)
    with watched() as balancer:
        ends(deploy(), 0, "unchanged")
    assert not balancer.out(), balancer.states
    ends(deploy("rollback_models", *AT_ONCE, *back), 0)
    FLEET.served(others=1)
    # The list's case came back with the deployment that it had proven.
    told = told_of(HOSTS[0])
    assert {model["answers"] for model in told.values()} == {True}, told
    return "the deployment before, a named one, the list again, and back: each is served everywhere"


if __name__ == "__main__":
    tell(FLEET, goes_back_and_forth)
