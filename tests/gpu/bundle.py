# SPDX-License-Identifier: Apache-2.0
"""What a machine with a GPU and without a network needs, in parts of some size, and its use there.

On a machine with a network, with the Python version and processor of the other one::

    python3.12 tests/gpu/bundle.py make

This leaves ``.cache/gpu-bundle/part1``, ``part2`` …, each of at most 56 MiB. They go to the same
places of a checkout on the other machine, all at once or one after the other. There one command
makes the environments, which only the first time does, and runs what it is asked for::

    python3.12 tests/gpu/bundle.py test [arguments of pytest]
    python3.12 tests/gpu/bundle.py bench [arguments of benchmarks/gpu.py]

Models of the tests find PyTorch where the Python that runs this has it. The standard library alone
is used, because nothing else is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache/gpu-bundle"
PART = 56 << 20
LIST = "parts.json"
PYTHON = "{}.{}".format(*sys.version_info[:2])

# What is asked for by name; less than `make venvs` installs, because it travels.
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "control": (
        "ansible-core>=2.19,<2.22",
        "mlflow-skinny>=3,<4",
        "tritonclient[http,grpc]>=2.41",
        # The same NumPy for all: it is large.
        "numpy<2",
        "protobuf",
        "PyYAML",
        "requests",
        "pytest>=8",
        "supervisor>=4.3",
        "setuptools<80",
    ),
    # Without treelite, whose SciPy is as large as the rest.
    "triton-server": ("nvidia-pytriton==0.7.0", "numpy>=1.26.4,<2", "onnxruntime>=1.20,<2"),
    # A server without the gigabyte of a whole MLflow, as for tests/compat.
    "mlflow-server": (
        "mlflow-skinny>=2.22,<3",
        "flask<4",
        "flask-cors",
        "graphene<4",
        "gunicorn",
        "alembic",
        "sqlalchemy<2.1",
        "sqlparse",
        "querystring-parser",
        "pandas<3",
        "numpy<2",
        "setuptools<80",
    ),
}


def make(folder: Path) -> None:
    """Wheels of all environments in one archive, cut into parts."""
    with tempfile.TemporaryDirectory() as name:
        wheels = Path(name) / "wheels"
        pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--disable-pip-version-check"]
        for environment, wanted in {**ENVIRONMENTS, "pip": ("pip",)}.items():
            print(f"{environment}: {' '.join(wanted)}", flush=True)
            subprocess.run([*pip, "-w", str(wheels), *wanted], check=True)
        archive = Path(name) / "wheels.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(wheels, "wheels")
        for old in folder.glob("part*"):
            shutil.rmtree(old)
        cut(archive, folder)
    for part in sorted(folder.glob("part*")):
        size = sum(path.stat().st_size for path in part.iterdir())
        print(f"{part}: {size / (1 << 20):.1f} MiB")


def cut(archive: Path, folder: Path, size: int = PART) -> None:
    """The list of the parts, which is short, is in each of them."""
    digests: list[str] = []
    with archive.open("rb") as stream:
        while piece := stream.read(size):
            digests.append(hashlib.sha256(piece).hexdigest())
            part = folder / f"part{len(digests)}"
            part.mkdir(parents=True)
            (part / "piece").write_bytes(piece)
    text = json.dumps({"python": PYTHON, "sha256": digests})
    for number in range(1, len(digests) + 1):
        (folder / f"part{number}" / LIST).write_text(text, encoding="utf-8")


def join(folder: Path, archive: Path) -> str:
    """Put the parts together; returns what tells this bundle from another.

    Raises SystemExit where a part is missing or damaged, or was made for another Python.
    """
    lists = sorted(folder.glob(f"part*/{LIST}"))
    if not lists:
        raise SystemExit(f"there is no part of a bundle in {folder}: make it where a network is")
    facts = json.loads(lists[0].read_text(encoding="utf-8"))
    if facts["python"] != PYTHON:
        raise SystemExit(
            f"the bundle is for Python {facts['python']}, and this is {PYTHON}: run it with that"
            " one, or make the bundle with this one"
        )
    with archive.open("wb") as stream:
        for number, digest in enumerate(facts["sha256"], 1):
            piece = folder / f"part{number}" / "piece"
            data = piece.read_bytes() if piece.is_file() else b""
            if hashlib.sha256(data).hexdigest() != digest:
                raise SystemExit(
                    f"{piece} is {'damaged, or of another bundle' if data else 'missing'}: part"
                    f" {number} of {len(facts['sha256'])} has to be copied here"
                )
            stream.write(data)
    return hashlib.sha256("".join(facts["sha256"]).encode()).hexdigest()


def install(folder: Path) -> dict[str, Path]:
    """The environments, made from the parts unless they are there; returns their Pythons."""
    pythons = {name: folder / "venvs" / name / "bin/python" for name in ENVIRONMENTS}
    stamp = folder / "venvs/complete"
    if stamp.is_file() and not list(folder.glob("part*")):
        return pythons
    with tempfile.TemporaryDirectory(dir=folder) as name:
        digest = join(folder, Path(name) / "wheels.tar")
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
            return pythons
        shutil.rmtree(folder / "venvs", ignore_errors=True)
        with tarfile.open(Path(name) / "wheels.tar") as tar:
            tar.extractall(name, filter="data")
        wheels = Path(name) / "wheels"
        # Some Pythons have neither ensurepip nor pip: a wheel of pip runs where it lies.
        pip = str(next(wheels.glob("pip-*.whl")) / "pip")
        for environment, wanted in ENVIRONMENTS.items():
            print(f"{environment}: installing", flush=True)
            place = folder / "venvs" / environment
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
            words = ["install", "-q", "--no-input", "--disable-pip-version-check", "--no-index"]
            subprocess.run(
                [str(pythons[environment]), pip, *words, "-f", str(wheels), *wanted], check=True
            )
        lend_torch(folder / "venvs/triton-server")
        stamp.write_text(digest, encoding="utf-8")
    return pythons


def lend_torch(venv: Path) -> None:
    """PyTorch of the Python that runs this; the environment's own NumPy stays before the other."""
    import importlib.util

    found = importlib.util.find_spec("torch")
    if found and found.origin:
        place = Path(found.origin).parent.parent
        (venv / f"lib/python{PYTHON}/site-packages/torch-elsewhere.pth").write_text(
            f"{place}\n", encoding="utf-8"
        )
        print(f"PyTorch is that of {place}", flush=True)


def link_checkout() -> None:
    """As the editable installation does, which there is none of here."""
    link = ROOT / ".dev/ansible_collections/mlops/triton"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(ROOT, link.parent), target_is_directory=True)


def run(folder: Path, what: str, arguments: Sequence[str]) -> int:
    pythons = install(folder)
    link_checkout()
    words = {
        "test": ["-m", "pytest", "-p", "no:cacheprovider", *(arguments or ["tests/gpu"])],
        "bench": [str(ROOT / "benchmarks/gpu.py"), *arguments],
        "python": list(arguments),
    }[what]
    control = pythons["control"]
    environment = {
        **os.environ,
        "PATH": f"{control.parent}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT / ".dev"),
        "PYTHONUNBUFFERED": "1",
        # Ansible refuses another encoding, and a bare machine may have none.
        "LC_ALL": "C.UTF-8",
        "TRITON_SERVER_PYTHON": str(pythons["triton-server"]),
        "MLFLOW_SERVER_PYTHON": str(pythons["mlflow-server"]),
    }
    return subprocess.run([str(control), *words], cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # Other options are for the program that is run.
        allow_abbrev=False,
        add_help=len(sys.argv) < 3,
    )
    parser.add_argument("what", choices=["make", "install", "test", "bench", "python"])
    parser.add_argument("--parts", type=Path, default=FOLDER, help="where the parts are")
    given, arguments = parser.parse_known_args()
    folder = given.parts.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if given.what in ("make", "install"):
        {"make": make, "install": install}[given.what](folder)
        return 0
    return run(folder, given.what, arguments)


if __name__ == "__main__":
    sys.exit(main())
