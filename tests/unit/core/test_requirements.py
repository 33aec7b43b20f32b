# SPDX-License-Identifier: Apache-2.0
"""What a publisher says a model needs becomes a list of packages, or a sentence with the place."""

from __future__ import annotations

import contextlib

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain.requirements import (
    FILES,
    Requirements,
    read_lock,
    read_requirements,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import (
    ArtifactError,
    DeliveryError,
)
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("yaml")
A, B = "a" * 64, "b" * 64
PYTHON_ENV = """\
python: 3.11.7
build_dependencies:
- pip==23.2.1
- setuptools==65.5.0
- wheel
dependencies:
- -r requirements.txt
"""
UV_LOCK = f"""\
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "churn"
version = "0.1.0"
source = {{ virtual = "." }}
dependencies = [
    {{ name = "numpy" }},
]

[package.metadata]
requires-dist = [{{ name = "numpy" }}]

[[package]]
name = "numpy"
version = "2.1.0"
source = {{ registry = "https://index.example/simple" }}
sdist = {{ url = "https://files.example/numpy-2.1.0.tar.gz", hash = "sha256:{A}", size = 1 }}
wheels = [
    {{ url = "https://files.example/numpy-2.1.0-cp311.whl", hash = "sha256:{B}", size = 2 }},
]
"""


def read(mlflow_version: str | None = None, **files: str | bytes) -> Requirements:
    given = {
        {
            "txt": "requirements.txt",
            "env": "python_env.yaml",
            "conda": "conda.yaml",
            "uv": "uv.lock",
        }[key]: text.encode() if isinstance(text, str) else text
        for key, text in files.items()
    }
    return read_requirements(given, mlflow_version)


def refused(**files: str | bytes) -> str:
    with pytest.raises(ArtifactError) as caught:
        read(**files)
    assert caught.value.step == "read the requirements"
    return str(caught.value)


def test_what_mlflow_logs_is_read() -> None:
    found = read(
        env=PYTHON_ENV,
        txt="mlflow==3.17.2\nscikit-learn==1.5.0\nNumPy>=1.26,<3 ; python_version < '3.13'\n",
        conda="channels: [conda-forge]\ndependencies: [python=3.11.7, 'pip<=23', {pip: [mlflow]}]",
    )
    assert found.python == "3.11.7" and found.minor == "3.11"
    assert found.lines == (
        "setuptools==65.5.0",
        "mlflow==3.17.2",
        "scikit-learn==1.5.0",
        "numpy>=1.26,<3 ; python_version < '3.13'",
    )
    assert found.in_words == "4 requirements" and found.notes == () and found.lock is None
    assert found.origin == "requirements.txt, python_env.yaml"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("mlflow\n# nothing\n\n  pandas  # frames\n", ("mlflow", "pandas")),
        ("\ufeffmlflow\r\npandas\r", ("mlflow", "pandas")),
        ("mlflow \\\n  >= 2 ,\\\n  <4\n", ("mlflow>=2,<4",)),
        ("mlflow[Extra_One, b] ( ==1.0 )", ("mlflow[b,extra-one]==1.0",)),
        ("Ml.Flow\nmlflow~=3.1\nmlflow~=3.1", ("ml-flow", "mlflow~=3.1")),
        ("mlflow===1.0+cpu; sys_platform=='linux' and (python_version<'4')", None),
    ],
    ids=range(6),
)
def test_lines_are_read_as_pip_reads_them(text: str, lines: tuple[str, ...] | None) -> None:
    wanted = lines or ("mlflow===1.0+cpu ; sys_platform=='linux' and (python_version<'4')",)
    assert read(txt=text).lines == wanted


def test_the_same_requirements_have_the_same_digest() -> None:
    one = read(txt="mlflow==3.17.2\nscikit_learn == 1.5.0\n")
    other = read(txt="# made by hand\nScikit-Learn==1.5.0\nmlflow==3.17.2")
    assert one.digest == other.digest
    assert one.digest != read(txt="mlflow==3.17.2\nscikit-learn==1.5.1\n").digest
    python = read(txt="mlflow==3.17.2\nscikit_learn==1.5.0\n", env="python: 3.12.1")
    assert python.digest != one.digest


def test_mlflow_is_added_where_nobody_named_it_and_that_is_said() -> None:
    found = read("3.17.2", txt="scikit-learn==1.5.0")
    assert found.lines == ("scikit-learn==1.5.0", "mlflow-skinny==3.17.2", "pandas")
    assert "mlflow-skinny==3.17.2 and pandas are added" in found.notes[0]
    assert read("3.17.2", txt="mlflow-skinny==3.1\npandas==2").notes == ()
    assert read("3.1; import os", txt="pandas").lines == ("pandas", "mlflow-skinny")


HASHED = f"numpy==2.1.0 \\\n  --hash=sha256:{A} \\\n  --hash=sha256:{B}\nmlflow==3.17.2\n"


def test_hashes_are_kept_beside_the_lines() -> None:
    found = read(txt=HASHED)
    assert found.lines == ("numpy==2.1.0", "mlflow==3.17.2")
    assert found.lock == f"numpy==2.1.0 --hash=sha256:{A} --hash=sha256:{B}\n"
    assert read_lock(found.lock) == {("numpy", "2.1.0"): (f"sha256:{A}", f"sha256:{B}")}


def test_uv_lock_says_which_bytes_the_packages_are() -> None:
    found = read(txt="mlflow==3.17.2\nnumpy==2.1.0", uv=UV_LOCK)
    assert found.lock == f"numpy==2.1.0 --hash=sha256:{A} --hash=sha256:{B}\n"
    assert found.origin == "requirements.txt, uv.lock"
    both = read(txt=f"mlflow\nnumpy==2.1.0 --hash=sha256:{A}", uv=UV_LOCK)
    assert both.lock == f"numpy==2.1.0 --hash=sha256:{A}\n"
    said = refused(txt=f"mlflow\nnumpy==2.1.0 --hash=sha256:{'c' * 64}", uv=UV_LOCK)
    assert "no hash of 'numpy' in common" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "mlflow\n--index-url https://u:secret@i.example/s",
            ("line 2", "--index-url", "index_url"),
        ),
        ("-i https://u:secret@i.example/s", ("line 1", "-i", "index_url")),
        ("--extra-index-url=https://u:secret@i.example", ("--extra-index-url", "extra_index_urls")),
        ("-fhttps://u:secret@i.example", ("-f", "find_links")),
        ("--no-binary :all:", ("--no-binary", "source_distributions")),
        ("a\n\n-e .", ("line 3", "-e", "code_paths")),
        ("-r more.txt", ("-r", "another file")),
        ("-c constraints.txt", ("-c", "another file")),
        ("--pre", ("--pre",)),
        ("numpy @ https://u:secret@i.example/n.whl", ("package 'numpy'", "address", "index_url")),
        ("numpy @ file:///secret/n.whl", ("package 'numpy'", "address")),
        ("git+https://u:secret@i.example/n.git#egg=n", ("line 1", "address")),
        ("./secret/numpy-1.0-py3-none-any.whl", ("line 1", "path", "code_paths")),
        ("code/secret-1.0.whl", ("path",)),
        ("C:\\secret\\n.whl", ("line 1", "path")),
        ("numpy==1.0 --config-settings x=y", ("option --config-settings",)),
        ("numpy>=1.0 --hash=sha256:" + A, ("'numpy>=1.0'", "one exact version")),
        ("numpy==1.0 \\\n # not\n --hash=md5:aa", ("line 3", "option --hash")),
        ("numpy==${HOME}", ("no requirement that pip understands",)),
        ("numpy ; python_version > '${HOME}'", ("no requirement",)),
        ("numpy (==1.0", ("no requirement",)),
        ("numpy" + "x" * 1200, ("more than 1000 characters",)),
        (b"\xff\xfe", ("no text",)),
        ("numpy\0", ("no text",)),
        ("a\n" * 6000, ("more than 5000",)),
    ],
    ids=range(25),
)
def test_what_says_where_packages_come_from_is_refused(
    text: str | bytes, words: tuple[str, ...]
) -> None:
    said = refused(txt=text)
    assert "requirements.txt" in said
    assert not [word for word in words if word not in said], said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "neither requirements.txt nor python_env.yaml nor conda.yaml"),
        ({"env": PYTHON_ENV}, "dependency 1 names requirements.txt, which the model does not have"),
        ({"env": "python: [3]", "txt": "a"}, "python '['3']' is no version"),
        ({"env": "python: '3.11; rm'", "txt": "a"}, "is no version such as"),
        ({"env": "- a", "txt": "a"}, "python_env.yaml is not a mapping"),
        ({"env": "{{{", "txt": "a"}, "python_env.yaml cannot be read"),
        ({"env": "dependencies: [[a]]"}, "dependency 1 is not one line of text"),
        ({"env": "dependencies: ['--index-url x']"}, "dependency 1: --index-url is not followed"),
        ({"conda": "dependencies: [python=3.11, numpy=1.26]"}, "'numpy=1.26' is a package of a"),
        ({"conda": "dependencies: [python=3.11, {pip: ['-e .']}]"}, "pip dependency 1: -e names"),
        ({"conda": "dependencies: {pip: a}"}, "dependencies is not a list"),
        # Its packages would be missing without a word.
        ({"txt": "a", "conda": "dependencies: [numpy]"}, "'numpy' is a package of a conda channel"),
        ({"txt": "a", "uv": "version = 2\n"}, "uv.lock is not what uv writes"),
        (
            {"txt": "a", "uv": UV_LOCK.replace('registry = "https', 'git = "https')},
            "not of an index",
        ),
        ({"txt": "a", "uv": UV_LOCK.replace('virtual = "."', 'editable = "a"')}, "not of an index"),
        ({"txt": "a" * (FILES["requirements.txt"] + 1)}, "has more than"),
    ],
    ids=range(16),
)
def test_other_files_are_refused_with_their_place(files: dict[str, str], words: str) -> None:
    assert words in refused(**files)


def test_conda_is_read_where_it_maps_to_pip() -> None:
    found = read(
        conda="channels: [conda-forge]\nname: mlflow-env\ndependencies:\n- python=3.10.13\n"
        "- pip<=23.2\n- setuptools=65.5\n- pip:\n  - mlflow==2.20\n  - pandas==2.0\n"
    )
    assert (found.python, found.lines, found.origin) == (
        "3.10.13",
        ("setuptools==65.5", "mlflow==2.20", "pandas==2.0"),
        "conda.yaml",
    )


PIECES = st.sampled_from(
    [*"\\\n #;'\"$=<>!~,()[]@:/-.*", "numpy", "==1.0", "--hash=sha256:" + A, "python_version", "é"]
)


@given(st.lists(PIECES, max_size=30).map("".join))
def test_properties_of_any_file(text: str) -> None:
    """It is refused in a sentence, or each line names one package, and reads as itself again."""
    try:
        found = read(txt=text)
    except DeliveryError as error:
        said = str(error)
    else:
        said = ""
        assert all("://" not in line and not line.startswith("-") for line in found.lines)
        assert not [line for line in found.lines if "$" in line or "#" in line or "\n" in line]
        assert read(txt="\n".join(found.lines)).lines == found.lines
    assert not said or "requirements.txt" in said


@given(st.text(max_size=200), st.binary(max_size=200))
def test_properties_of_other_files(text: str, data: bytes) -> None:
    for files in ({"uv": text, "txt": "a"}, {"conda": data}, {"env": data, "txt": "a"}):
        with contextlib.suppress(DeliveryError):
            read(**files)
