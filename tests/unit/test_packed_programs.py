# SPDX-License-Identifier: Apache-2.0
"""What the roles ship follows from the packages: a new file needs no word anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKER = "roles/triton/files/pack_start_triton.py"


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A copy of the collection in which files can be added."""
    copy = tmp_path / "collection"
    for name in ("plugins", "roles"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("galaxy.yml", "publish_model_to_mlflow.py"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def add(collection: Path, folder: str) -> str:
    """A module in a sub-package that was not there."""
    place = collection / folder / "annex"
    place.mkdir()
    (place / "__init__.py").write_text("")
    (place / "lately.py").write_text("ADDED = True\n")
    return f"{folder}/annex/lately.py"


def pack(collection: Path, folder: Path) -> tuple[str, Path]:
    """What role triton does on the controller: (digest, zip)."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-B", str(collection / PACKER), str(collection), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip(), folder / "start_triton.pyz"


def evaluate(role: Path, name: str, **given: Any) -> str:
    """A variable of a role, by the role's own expression; lookups want a loader of their own."""
    code = (
        "import json, sys, yaml\n"
        "from ansible.parsing.dataloader import DataLoader\n"
        "from ansible.plugins.loader import init_plugin_loader\n"
        "from ansible.template import Templar\n"
        "try: from ansible.template import trust_as_template as trusted\n"
        "except ImportError: trusted = str\n"
        "init_plugin_loader()\n"
        "said = yaml.safe_load(open(sys.argv[1]))\n"
        "said = {key: trusted(one) if isinstance(one, str) else one for key, one in said.items()}\n"
        "said.update(json.loads(sys.argv[3]))\n"
        "templar = Templar(DataLoader(), variables=said)\n"
        "print(templar.template(trusted('{{ %s }}' % sys.argv[2])))"
    )
    values = {"role_path": str(role), "ansible_playbook_python": sys.executable, **given}
    done = subprocess.run(
        [sys.executable, "-c", code, str(role / "vars/main.yml"), name, json.dumps(values)],
        env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@cache
def image_sum(collection: Path) -> str:
    """What role mlflow takes into the digest of its image."""
    return evaluate(collection / "roles/mlflow", "_mlflow_plugin_sum", mlflow_plugin="")


@pytest.mark.parametrize(
    ("folder", "root"),
    [
        ("plugins/module_utils/_delivery/domain", "plugins/module_utils"),
        ("plugins/module_utils/_delivery/repository/s3", "plugins/module_utils"),
        ("roles/triton/files/start_triton", "roles/triton/files"),
    ],
)
def test_a_new_file_reaches_the_start_wrapper(
    collection: Path, tmp_path: Path, folder: str, root: str
) -> None:
    before, _archive = pack(collection, tmp_path / "before")
    name = add(collection, folder)
    after, archive = pack(collection, tmp_path / "after")
    assert name.removeprefix(f"{root}/") in zipfile.ZipFile(archive).namelist()
    assert before != after


@pytest.mark.parametrize(
    "folder",
    [
        "plugins/module_utils/_delivery/domain",
        "plugins/module_utils/_delivery/repository/s3",
        "plugins/mlflow_deployments",
        "roles/triton/files/start_triton",
    ],
)
def test_a_new_file_reaches_the_image_of_the_plugin(
    collection: Path, tmp_path: Path, folder: str
) -> None:
    before = image_sum(ROOT)
    assert len(before) == 64
    name = add(collection, folder)
    assert image_sum(collection) not in ("", before)
    packer = collection / "roles/mlflow/files/plugin_wheel.py"
    command = [sys.executable, "-B", str(packer), str(collection), str(tmp_path)]
    wheel = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert f"ansible_collections/mlops/triton/{name}" in zipfile.ZipFile(wheel).namelist()


def test_the_digest_of_the_service_is_that_of_the_zip() -> None:
    given: dict[str, Any] = {
        "triton_admin_key": {},
        "_triton_tls_files": {},
        "_triton_host": {"contents": {}, "python": "3.11"},
        "_triton_docker": True,
        "_triton_settings": {},
        "_triton_environment": {},
        "_triton_container": {},
        "_triton_image": "image",
    }

    def digest(packed: str) -> str:
        return evaluate(
            ROOT / "roles/triton", "_triton_digest", _triton_packed={"stdout": packed}, **given
        )

    first = digest("a")
    assert len(first) == 64
    assert first != digest("b")


def test_the_same_files_make_the_same_zip(collection: Path, tmp_path: Path) -> None:
    first, archive = pack(ROOT, tmp_path / "first")
    second, again = pack(collection, tmp_path / "second")
    assert first == second
    assert archive.read_bytes() == again.read_bytes()


def test_the_start_wrapper_imports_nothing_that_is_not_in_its_zip(tmp_path: Path) -> None:
    """Isolated: beside the zip, the interpreter has its standard library alone."""
    _digest, archive = pack(ROOT, tmp_path)
    code = (
        "import importlib, pkgutil, sys; sys.path.insert(0, sys.argv[1])\n"
        "names = [one.name for one in pkgutil.walk_packages([sys.argv[1]])]\n"
        "names = [name for name in names if not name.endswith('__main__')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(*names)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(archive)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert {"host", "start_triton.store", "_delivery.repository.s3.changes"} <= set(names)
    helped = subprocess.run(
        [sys.executable, "-I", "-S", str(archive), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--health" in helped.stdout
