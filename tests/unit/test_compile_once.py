# SPDX-License-Identifier: Apache-2.0
"""What tests' Pythons keep of compiled modules: never another module's, and nothing that counts."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import compile_once
import pytest


@pytest.fixture
def site(tmp_path: Path) -> Path:
    compile_once.install(str(tmp_path))
    return tmp_path


def said(site: Path, source: str, archive: str = "module.zip") -> str:
    """What a fresh Python prints that imports this source out of a zip."""
    path = site / archive
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("module.py", source)
    words = f"import sys; sys.path.insert(0, {str(site)!r}); import compile_once\n"
    words += f"sys.path.insert(0, {str(path)!r}); import module"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def kept(site: Path) -> list[Path]:
    return sorted((site / "compile_once.d").iterdir())


def test_a_source_is_compiled_once_and_names_the_zip_it_came_from(site: Path) -> None:
    source = "def where(): return where.__code__.co_filename\nprint(where(), __file__)"
    first, second = said(site, source, "one.zip"), said(site, source, "two.zip")
    assert first == f"{site}/one.zip/module.py {site}/one.zip/module.py"
    assert second == f"{site}/two.zip/module.py {site}/two.zip/module.py"
    assert len(kept(site)) == 1


def test_another_source_of_the_same_name_and_size_is_another_module(site: Path) -> None:
    assert [said(site, f"print({number})") for number in (1, 2, 1)] == ["1", "2", "1"]
    assert len(kept(site)) == 2


@pytest.mark.parametrize("damage", [b"", b"x", b"\xe9\x00"], ids=["empty", "another", "cut off"])
def test_what_is_damaged_is_compiled_again(site: Path, damage: bytes) -> None:
    said(site, "print(1)")
    kept(site)[0].write_bytes(damage)
    assert said(site, "print(1)") == "1"


def test_where_nothing_can_be_kept_all_is_compiled(site: Path) -> None:
    (site / "compile_once.d").rmdir()
    (site / "compile_once.d").symlink_to("/proc/self")
    assert said(site, "print(1)") == "1"


def test_what_a_system_s_python_compiles_is_kept_for_its_environments(tmp_path: Path) -> None:
    compile_once.install(str(tmp_path))
    (tmp_path / "compile_once.py").rename(tmp_path / "sitecustomize.py")
    source = "def where(): return where.__code__.co_filename\nprint(where())"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text(source)
        words = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import sitecustomize\n"
        words += "import compileall; compileall.compile_file(sys.argv[1], force=True, quiet=1)\n"
        words += f"sys.path.insert(0, {str(tmp_path / name)!r}); import module"
        command = [sys.executable, "-IS", "-c", words, str(tmp_path / name / "module.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(tmp_path / name / "module.py")
        assert (tmp_path / name / "__pycache__").is_dir()
        assert len(kept(tmp_path)) == 1


def test_installing_again_keeps_what_there_is(site: Path) -> None:
    said(site, "print(1)")
    compile_once.install(str(site))
    assert len(kept(site)) == 1
