# SPDX-License-Identifier: Apache-2.0
"""docs/environments.md: real uv makes environments of small wheels, without an index."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery import progress
from ansible_collections.mlops.triton.plugins.module_utils._delivery.effects import observe
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments import (
    environments,
    proof,
    uv_program,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments import (
    place as places,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments.environments import (  # noqa: E501
    Environment,
    Environments,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    DeliveryError,
    LockTimeout,
    MissingLibrary,
)
from support import wheels
from support.environments import PYTHON, Place, new_place, wanted

pytest.importorskip("yaml")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="root alone builds as another user")
SOLVER = wanted("solver==1.0")


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    """One with an environment for ``SOLVER``."""
    with new_place() as place:
        place.environments().build(SOLVER)
        yield place


@pytest.fixture
def place() -> Iterator[Place]:
    with new_place() as made:
        yield made


def fails(place: Place, *lines: str, lock: str | None = None, **options: Any) -> str:
    """What is said of a build that cannot be: nothing of it is left."""
    before = place.names() if place.folder.exists() else []
    with pytest.raises(DeliveryError) as caught:
        place.environments(**options).build(wanted(*lines), lock)
    said = str(caught.value)
    assert said.startswith("build the environment: ") and "\n" not in said
    assert said.endswith("No environment was changed.")
    assert place.names() == before and place.left_behind == []
    return said


def test_an_environment_has_what_the_model_needs(shared: Place) -> None:
    found = shared.environments().build(SOLVER)
    assert found.packages == (
        ("mlflow-skinny", "1.0"),
        ("numpy", "1.0"),
        ("pandas", "1.0"),
        ("solver", "1.0"),
    )
    code = "import mlflow.pyfunc, pandas, solver, sys; print(sys.prefix, *sys.version_info[:2])"
    said = subprocess.check_output([found.python, "-c", code], text=True).split()
    assert said == [str(shared.folder / found.digest), *PYTHON.split(".")]
    assert shared.environments().present() == [found]
    compiled = list(Path(found.python).parents[1].glob("lib/*/site-packages/solver/__pycache__/*"))
    assert len(compiled) == 1


def test_it_says_what_it_is_made_of(shared: Place) -> None:
    found = shared.environments().build(SOLVER)
    folder = shared.folder / found.digest
    stamp = json.loads((folder / "environment.json").read_bytes())
    assert stamp["schema"] == 1 and stamp["digest"] == found.digest
    assert stamp["lock_digest"] == found.lock_digest and stamp["size"] == found.size > 0
    bill = json.loads((folder / "sbom.json").read_bytes())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    solver = next(one for one in bill["components"] if one["name"] == "solver")
    made = wheels.sha256(shared.links / "solver-1.0-py3-none-any.whl")
    assert (solver["version"], solver["purl"]) == ("1.0", "pkg:pypi/solver@1.0")
    assert solver["hashes"] == [{"alg": "SHA-256", "content": made}]


def test_a_look_writes_nothing_and_asks_nobody(place: Place) -> None:
    effects: list[str] = []
    with observe(lambda _moment, kind, _subject: effects.append(kind)):
        before = place.environments().look(SOLVER)
    assert (before.sentence, before.is_ready) == ("environment: 3 requirements", False)
    assert not effects and not place.folder.exists()
    made = place.environments().build(SOLVER)
    tree = sorted((str(path), path.lstat().st_mtime_ns) for path in place.folder.rglob("*"))
    # Without the wheels, nothing could be resolved.
    shutil.rmtree(place.links)
    after = place.environments().look(SOLVER)
    assert after.sentence == "environment: 3 requirements; 4 packages"
    assert (after.digest, after.python, after.is_ready) == (made.digest, made.python, True)
    assert tree == sorted((str(path), path.lstat().st_mtime_ns) for path in place.folder.rglob("*"))


def test_the_same_requirements_are_resolved_and_built_once(shared: Place) -> None:
    effects: list[str] = []
    found = shared.environments().build(SOLVER)
    wheels.wheel(shared.links, "pandas", "2.0", needs=("numpy",))
    try:
        with observe(lambda _moment, kind, _subject: effects.append(kind)):
            assert shared.environments().build(wanted("Solver == 1.0")) == found
    finally:
        (shared.links / "pandas-2.0-py3-none-any.whl").unlink()
    assert effects == []


def test_models_with_the_same_lock_share_an_environment(shared: Place) -> None:
    one = shared.environments().build(SOLVER)
    effects: list[str] = []
    with observe(lambda _moment, kind, _subject: effects.append(kind)):
        other = shared.environments().build(wanted("solver<2", "numpy"))
    assert (other.digest, shared.names()) == (one.digest, [one.digest])
    assert "resolve" in effects and "install packages" not in effects


def test_every_host_of_a_run_installs_the_same(place: Place) -> None:
    with new_place() as first:
        lock = first.environments().build(wanted("solver==1.0")).lock
    # Here an unpinned package would be newer.
    wheels.wheel(place.links, "pandas", "2.0", needs=("numpy",))
    found = place.environments().build(SOLVER, lock)
    assert ("pandas", "1.0") in found.packages and found.lock == lock
    assert place.environments().look(SOLVER).digest == found.digest


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ("solver==1.0\n", "no hash of 'solver'"),
        ("--index-url http://i.example\n", "--index-url is not followed"),
        ("", "the lock is empty"),
    ],
    ids=["no hash", "option", "empty"],
)
def test_a_lock_names_packages_with_hashes_only(shared: Place, lock: str, words: str) -> None:
    with pytest.raises(DeliveryError, match=words):
        shared.environments().build(SOLVER, lock)


# --- what cannot be had ---------------------------------------------------------------------------


def test_a_package_that_is_nowhere_is_named_and_find_links_brings_it(place: Place) -> None:
    said = fails(place, "rare==1.0")
    assert "the wheelhouse (find_links) does not have the package 'rare'" in said
    more = place.base / "more"
    wheels.wheel(more, "rare")
    done = place.environments(find_links=[str(place.links), str(more)]).build(wanted("rare==1.0"))
    assert ("rare", "1.0") in done.packages


def test_a_version_that_is_nowhere_is_named(shared: Place) -> None:
    assert "has no version of 'solver==9'" in fails(shared, "solver==9")


def test_requirements_that_contradict_are_named(place: Place) -> None:
    wheels.wheel(place.links, "old", needs=("solver<2",))
    wheels.wheel(place.links, "new", needs=("solver>=2",))
    said = fails(place, "old", "new")
    assert "the model's requirements contradict each other (Because" in said
    assert "old" in said and "new" in said and "solver" in said


BACKEND = """\
import os, zipfile
def build_wheel(folder, settings=None, metadata=None):
    name = "source_only-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        info = "source_only-1.0.dist-info"
        wheel.writestr("source_only.py", f"USER = {os.getuid()}")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: source-only\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""  # noqa: E501


def test_a_package_without_a_wheel_is_built_only_where_that_is_allowed(place: Place) -> None:
    wheels.source_distribution(place.links, "source_only", "1.0", BACKEND)
    said = fails(place, "source-only==1.0")
    assert "there is no wheel of 'source-only'" in said and "source_distributions" in said
    shutil.rmtree(place.folder / "cache")
    done = place.environments(source_distributions=True).build(wanted("source-only==1.0"))
    asked = [done.python, "-c", "import source_only; print(source_only.USER)"]
    built_by = int(subprocess.check_output(asked))
    # What runs code has no part in what later builds believe.
    assert os.geteuid() != 0 or not (place.folder / "cache").exists()
    assert built_by == (pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid())


def test_a_wheel_for_another_python_is_none(place: Place) -> None:
    wheels.wheel(place.links, "compiled", tag="cp39-cp39-manylinux_2_17_x86_64")
    said = fails(place, "compiled")
    assert "there is no wheel of 'compiled' 1.0 for this Python and platform" in said
    wheels.wheel(place.links, "compiled")
    assert place.environments().build(wanted("compiled"))


def test_what_another_repository_may_use_is_kept_as_long_as_that_is_there(
    place: Place, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for state in (first, second):
        state.mkdir()
        # The second one finds it ready.
        place.environments(str(state)).build(SOLVER)
    assert place.environments(str(first)).remove_unused([]) == []
    second.rmdir()
    (name,) = place.names()
    assert place.environments(str(first)).remove_unused([]) == [name]
    assert place.names() == []


def test_other_bytes_than_the_lock_says_are_not_installed(place: Place) -> None:
    lock = place.environments().build(SOLVER).lock
    assert place.environments().remove_unused([])
    shutil.rmtree(place.folder / "cache")
    changed = {"solver.py": "print('somebody else')"}
    wheels.wheel(place.links, "solver", "1.0", files=changed)
    said = fails(place, "solver==1.0", lock=lock)
    assert "other bytes for solver==1.0 than the lock says (hash mismatch)" in said


def test_other_bytes_than_the_publisher_wrote_down_are_not_installed(shared: Place) -> None:
    said = fails(shared, f"solver==2.0 --hash=sha256:{'0' * 64}")
    assert "other bytes for solver==2.0 than the model's publisher wrote down" in said
    right = wheels.sha256(shared.links / "solver-2.0-py3-none-any.whl")
    found = shared.environments().build(wanted(f"solver==2.0 --hash=sha256:{right}"))
    assert ("solver", "2.0") in found.packages


def test_an_index_that_does_not_answer_is_named_and_its_password_is_nowhere(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody may read the arguments of a process."""
    monkeypatch.setenv("NO_PROXY", "*")
    seen, over = set(), threading.Event()

    def watch() -> None:
        while not over.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    extra = "http://reader:canary-8@127.0.0.1:9/simple"
    try:
        said = fails(place, "solver==1.0", no_index=False, extra_index_urls=[extra])
    finally:
        over.set()
        watcher.join()
    assert "the index cannot be reached" in said and "index_url" in said
    assert "127.0.0.1:9" in said and "canary-8" not in said
    assert any(b"pip\0compile" in one for one in seen)
    assert not [one for one in seen if b"canary-8" in one]
    kept = [path for path in place.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in kept if b"canary-8" in path.read_bytes()]


def test_mlflow_takes_the_place_of_a_small_one_that_was_not_released(place: Place) -> None:
    (place.links / "mlflow_skinny-1.0-py3-none-any.whl").unlink()
    wheels.wheel(place.links, "mlflow", "1.0")
    found = place.environments().build(SOLVER)
    assert ("mlflow", "1.0") in found.packages
    assert "mlflow-skinny" not in dict(found.packages)


def test_an_environment_that_does_not_import_is_none(place: Place) -> None:
    wheels.wheel(
        place.links, "numpy", files={"numpy.py": "raise ImportError('too\\nold \\x1b[2J')"}
    )
    said = fails(place, "solver==1.0")
    assert "mlflow.pyfunc, numpy, pandas cannot be imported in it" in said and "old" in said
    assert "\x1b" not in said


def test_an_import_that_does_not_end_is_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "_SECONDS", 1)
    wheels.wheel(place.links, "numpy", files={"numpy.py": "while True: pass"})
    assert "that did not end within 1 seconds" in fails(place, "solver==1.0")


def test_an_import_takes_no_more_memory_than_it_may(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "_MEMORY", 256 << 20)
    wheels.wheel(place.links, "numpy", files={"numpy.py": "x = bytearray(1 << 30)"})
    assert "MemoryError" in fails(place, "solver==1.0")


def test_a_missing_uv_is_said_with_what_to_do(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(uv_program, "_of_this_python", lambda: None)
    with pytest.raises(MissingLibrary, match=r"the program uv is needed .* 'uv>=0.9,<1'"):
        place.environments().build(SOLVER)


# --- which Python ---------------------------------------------------------------------------------


def test_a_python_that_is_not_there_is_a_sentence_and_pythons_brings_it(place: Place) -> None:
    other = next(
        (one for one in ("3.12", "3.10") if (found := wheels.python_for_all(one, place.base))), None
    )
    if other is None:
        pytest.skip("there is no other Python here")
    assert found
    with pytest.raises(DeliveryError) as caught:
        place.environments().build(wanted("solver==1.0", python="3.77.1"))
    said = str(caught.value)
    assert "needs Python 3.77" in said and "pythons" in said and "python_mirror" in said
    made = place.environments(pythons=[found]).build(wanted("solver==1.0", python=f"{other}.99"))
    assert made.version.startswith(f"{other}.")
    asked = subprocess.check_output([made.python, "-c", "import sys, solver; print(sys.version)"])
    assert asked.decode().startswith(f"{other}.")


def test_a_mirror_that_has_no_python_is_said(place: Place) -> None:
    with pytest.raises(DeliveryError) as caught:
        place.environments(python_mirror="file:///nonexistent").build(
            wanted("solver", python="3.9.1")
        )
    assert "python_mirror of the option environments does not bring cpython-3.9" in str(
        caught.value
    )
    assert place.left_behind == []


@ROOT_ONLY
def test_a_python_that_others_may_not_run_is_not_used(place: Place) -> None:
    found = wheels.python_for_all("3.10", place.base) or wheels.python_for_all("3.12", place.base)
    if not found or found.startswith("/usr"):
        pytest.skip("there is no Python here that can be hidden")
    minor = found.rpartition("python")[2]
    Path(found).parents[2].chmod(0o755)
    Path(found).parents[1].chmod(0o700)
    with pytest.raises(DeliveryError) as caught:
        place.environments(pythons=[found]).build(wanted("solver", python=minor))
    assert f"{found} (that user may not run it)" in str(caught.value)


# --- whose it is ----------------------------------------------------------------------------------


@ROOT_ONLY
def test_an_environment_of_root_is_changed_by_nobody_else(place: Place) -> None:
    watcher = "import os\nopen('/dev/null').close()\nHERE = os.access(__file__, os.W_OK)\n"
    wheels.wheel(
        place.links,
        "numpy",
        files={"numpy.py": f"{watcher}assert os.getuid() != 0 and not HERE, 'it can be changed'\n"},
    )
    found = place.environments().build(SOLVER)
    for path in (place.folder / found.digest).rglob("*"):
        info = path.lstat()
        assert (info.st_uid, info.st_gid) == (0, 0)
        if not stat.S_ISLNK(info.st_mode):
            assert not stat.S_IMODE(info.st_mode) & 0o7022
            assert stat.S_ISDIR(info.st_mode) or info.st_nlink == 1
    # What later runs as nobody cannot put other bytes into uv's cache.
    assert stat.S_IMODE((place.folder / "cache").stat().st_mode) == 0o700


@ROOT_ONLY
def test_root_builds_as_the_owner_of_the_folder(place: Place) -> None:
    place.folder.mkdir()
    os.chown(place.folder, 64123, 64123)
    found = place.environments().build(SOLVER)
    owners = {path.lstat().st_uid for path in place.folder.rglob("*")}
    assert owners == {64123} and found.packages
    assert place.environments().look(SOLVER).is_ready


@ROOT_ONLY
def test_root_builds_nothing_where_others_may_put_something_in_its_place(place: Place) -> None:
    place.base.chmod(0o777)
    with pytest.raises(DeliveryError) as caught:
        place.environments().build(SOLVER)
    assert f"others may change {place.base}" in str(caught.value)
    place.base.chmod(0o755)
    assert place.environments().build(SOLVER)


# --- what becomes of it ---------------------------------------------------------------------------


def _no_stamp(folder: Path) -> None:
    (folder / "environment.json").unlink()


def _half_a_stamp(folder: Path) -> None:
    (folder / "environment.json").write_text('{"schema": 1')


def _no_python(folder: Path) -> None:
    (folder / "bin/python").unlink()


def _another_python(folder: Path) -> None:
    (folder / "bin/python").unlink()
    (folder / "bin/python").symlink_to("/bin/true")


@pytest.mark.parametrize("damage", [_no_stamp, _half_a_stamp, _no_python, _another_python])
def test_a_damaged_environment_is_built_anew(shared: Place, damage: Any) -> None:
    found = shared.environments().build(SOLVER)
    damage(shared.folder / found.digest)
    assert not shared.environments().look(SOLVER).is_ready
    again = shared.environments().build(SOLVER)
    assert again.digest == found.digest and shared.environments().look(SOLVER).is_ready
    subprocess.run([again.python, "-c", "import solver"], check=True)


def test_what_nobody_uses_is_removed(place: Place) -> None:
    one, two = (place.environments().build(wanted(f"solver=={n}.0")) for n in (1, 2))
    assert place.environments().remove_unused([one.digest, two.digest]) == []
    assert place.environments().remove_unused([one.digest]) == [two.digest]
    assert place.names() == [one.digest] and place.environments().present() == [one]
    subprocess.run([one.python, "-c", "import solver"], check=True)


def test_builders_of_the_same_environment_wait_for_each_other(place: Place) -> None:
    found: list[Environment] = []
    installed: list[str] = []

    def build(environments: Environments) -> None:
        found.append(environments.build(SOLVER))

    def note(moment: str, kind: str, _subject: str) -> None:
        if (moment, kind) == ("before", "install packages"):
            installed.append(kind)

    with observe(note):
        threads = [
            threading.Thread(target=build, args=(place.environments(),)) for _number in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 3 and len(set(found)) == 1 and len(installed) == 1


def test_a_builder_that_is_waited_for_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "_TOTAL", 0.3)
    other = places.Place(str(place.folder))
    other.ensure()
    with other.lock(5), pytest.raises(LockTimeout) as caught:
        place.environments().build(SOLVER)
    assert f"(process {os.getpid()})" in str(caught.value)


def test_progress_is_told_while_it_builds(place: Place) -> None:
    told: set[str] = set()
    with progress.report_progress(
        lambda now: told.update(str(one["step"]) for one in now), every=0.01
    ):
        wheels.wheel(place.links, "numpy", files={"numpy.py": "import time; time.sleep(0.3)"})
        place.environments().build(SOLVER)
        time.sleep(0.05)
    assert {"build the environment", "import packages"} <= told
