# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenario asks and does from outside: models, inferences, a look at the health during a
reload, a deployment that was killed.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support import models  # noqa: E402

DIE = ROOT / "molecule/native_systemd/files/die.py"
PATIENCE = 120


def samples(folder: Path, identity: int, load_delay: float) -> list[models.Sample]:
    return [
        models.make_onnx(folder),
        models.make_python(folder, identity=identity, load_delay=load_delay),
    ]


def answer(url: str, sample: models.Sample) -> dict[str, object]:
    body = json.dumps(sample.request()).encode()
    request = urllib.request.Request(
        f"{url}/v2/models/{sample.name}/infer", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return dict(json.load(response))


def within(seconds: float, question: Callable[[], list[str]]) -> list[str]:
    """Asks until there is nothing to complain about, then says nothing; else what the last
    complaints were.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            found = question()
        except (OSError, ValueError) as error:
            found = [str(error)]
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.2)


def ask(arguments: argparse.Namespace) -> list[str]:
    """Both models answer what arithmetic says."""
    wanted = samples(arguments.folder, arguments.identity, 0)
    return within(
        PATIENCE,
        lambda: [
            f"{sample.name}: {text}"
            for sample in wanted
            for text in sample.differences(answer(arguments.url, sample))
        ],
    )


def watch(arguments: argparse.Namespace) -> list[str]:
    """Runs the container's health check, as the engine does, until the model answers with the new
    identity.
    """
    sample = models.make_python(arguments.folder, identity=arguments.identity)
    check = [
        "docker",
        "exec",
        arguments.container,
        "python3",
        arguments.wrapper,
        "--config",
        arguments.config,
        "--health",
    ]
    end, checks = time.monotonic() + PATIENCE, 0
    while sample.differences(answer(arguments.url, sample)):
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        checks += 1
        if done.returncode:
            return [f"check {checks} said: {done.stdout}{done.stderr}"]
        if time.monotonic() > end:
            return ["the new version never answered"]
    return (
        [] if checks > 1 else ["there was no time to check the health while the model was reloaded"]
    )


def interrupt(arguments: argparse.Namespace) -> list[str]:
    """Leaves what a deployment leaves that is killed between the swap and the load: new files, an
    old record, a journal.
    """
    sample = models.make_python(arguments.folder, identity=arguments.identity)
    request = {
        "place": json.loads(arguments.place),
        "model": {"name": sample.name, "model_uri": str(sample.folder)},
    }
    done = subprocess.run(
        [sys.executable, DIE, ROOT / "plugins/module_utils", json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != -signal.SIGKILL:
        return [f"it was not killed and ended with {done.returncode}: {done.stdout}{done.stderr}"]
    return []


def settled(arguments: argparse.Namespace) -> list[str]:
    from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.state_store import (  # noqa: E501
        StateStore,
    )

    return (
        ["the journal is still there"]
        if StateStore(str(arguments.repository)).journal("doubler")
        else []
    )


def certificate(arguments: argparse.Namespace) -> list[str]:
    arguments.folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=arguments.folder,
        check=True,
        capture_output=True,
    )
    # The server's user reads it; nobody but root gets into molecule's folder.
    (arguments.folder / "key.pem").chmod(0o644)
    return []


def nothing(arguments: argparse.Namespace) -> list[str]:
    """An archive as docker save makes it, of an image without any program."""
    content = arguments.archive.with_suffix(".content.tar")
    with tarfile.open(content, "w") as archive:
        archive.add(__file__, "nothing")
    for words in (
        ["import", "--change", "LABEL mlops.triton.bed.image=none", content, arguments.image],
        ["save", "--output", arguments.archive, arguments.image],
        ["image", "rm", arguments.image],
    ):
        subprocess.run(["docker", *map(str, words)], check=True, capture_output=True)
    return []


def make(arguments: argparse.Namespace) -> list[str]:
    samples(arguments.folder, arguments.identity, arguments.load_delay)
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for action, words in (
        (make, ["folder", "identity"]),
        (ask, ["folder", "identity", "url"]),
        (watch, ["folder", "identity", "url", "container", "wrapper", "config"]),
        (interrupt, ["folder", "identity", "place"]),
        (settled, ["repository"]),
        (certificate, ["folder"]),
        (nothing, ["archive", "image"]),
    ):
        command = commands.add_parser(action.__name__)
        command.set_defaults(action=action)
        for word in words:
            command.add_argument(
                word,
                type={"folder": Path, "repository": Path, "archive": Path, "identity": int}.get(
                    word, str
                ),
            )
        if action is make:
            command.add_argument("--load-delay", type=float, default=0)
    arguments = parser.parse_args()
    complaints = arguments.action(arguments)
    print("\n".join(complaints), file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
