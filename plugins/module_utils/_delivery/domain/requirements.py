# SPDX-License-Identifier: Apache-2.0
"""Which packages a model needs: what its publisher wrote down when the model was logged.

The files are the publisher's, so what they say is judged: packages are named, with versions and
markers. Where packages come from is said by the place that serves the model, never by a file of the
model: lines with an index, an address, a path or an option are refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from ..errors import ArtifactError
from .yaml_text import read_yaml

PYTHON_ENV, REQUIREMENTS, CONDA, UV_LOCK = (
    "python_env.yaml",
    "requirements.txt",
    "conda.yaml",
    "uv.lock",
)
FILES: Mapping[str, int] = {
    PYTHON_ENV: 1 << 20,
    REQUIREMENTS: 4 << 20,
    CONDA: 1 << 20,
    UV_LOCK: 32 << 20,
}
"""The files that are read of an artifact, and the bytes that each may have."""
_STEP = "read the requirements"
_MOST_LINES = 5000
_MOST_PACKAGES = 5000
_LONGEST = 64 << 10
_LONGEST_NAMED = 1000
"""Characters of a line with its hashes, and without them."""
_SHOWN = 80
_MLFLOW = ("mlflow", "mlflow-skinny")
# Nothing imports them at run time.
_NOT_INSTALLED = ("pip", "wheel")
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"(?:===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+"
_LINE = re.compile(
    rf"(?P<name>{_NAME})\s*"
    rf"(?:\[\s*(?P<extras>{_NAME}(?:\s*,\s*{_NAME})*)?\s*\]\s*)?"
    rf"(?P<versions>\(?\s*{_VERSION}(?:\s*,\s*{_VERSION})*\s*\)?)?\s*"
    r"(?:;(?P<marker>(?:[\s()<>=!~a-zA-Z_.]|'[^'\"$\\]*'|\"[^'\"$\\]*\")+))?"
)
_HASH = re.compile(r"\s--hash[=\s]\s*(?P<hash>(?:sha256|sha384|sha512):[0-9a-f]+)(?=\s|$)")
_EXACT = re.compile(r"===?\s*(?P<version>[A-Za-z0-9.+!_-]+)")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_PYTHON = re.compile(r"(?P<minor>\d{1,2}\.\d{1,3})(?:\.\d{1,3})?(?:(?:a|b|rc)\d{1,3})?\+?")
_RELEASE = re.compile(r"\d+(?:\.\d+)*(?:[a-z0-9.+-]*)")
_CONDA_ENTRY = re.compile(
    r"(?:[A-Za-z0-9._/-]+::)?(?P<name>[A-Za-z0-9._-]+)\s*"
    r"(?P<operator>==|=|<=|>=|~=|!=|<|>)?\s*(?P<version>[0-9A-Za-z.*]+)?(?P<rest>.*)"
)
# What uv writes, a line each: a table, a key, and the addresses with their hashes.
_LOCK_TEXT = re.compile(r'(?P<key>name|version) = "(?P<value>[^"\\]*)"')
_LOCK_SOURCE = re.compile(r'source = \{ (?P<kind>[a-z]+) = "(?P<value>[^"]*)"')
_LOCK_HASH = re.compile(r'\bhash = "(?P<hash>sha256:[0-9a-f]{64})"')
_OPTIONS = {
    ("-i", "--index-url", "--pypi-url"): "index_url",
    ("--extra-index-url",): "extra_index_urls",
    ("-f", "--find-links"): "find_links",
    ("--no-index",): "no_index",
    ("--no-binary",): "source_distributions",
}


@dataclass(frozen=True)
class Requirements:
    """What a model needs.

    Attributes:
        python: the version that the model was logged with ("3.11.7"); None: nobody says.
        lines: one package each, as pip reads them, without hashes.
        lock: where the publisher says which bytes these are: a line for each package and version,
            with its hashes. Packages that are not in it are free.
        origin: the files that say so.
        added: those of ``lines`` which nobody wrote and MLflow needs to load a model.
    """

    python: str | None
    lines: tuple[str, ...]
    lock: str | None
    origin: str
    added: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of what is asked for, however it was written."""
        asked = [self.minor, sorted(self.lines), self.lock]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    @property
    def minor(self) -> str | None:
        """The version of Python that is needed, such as 3.11: another patch release is fine."""
        found = _PYTHON.fullmatch(self.python or "")
        return found["minor"] if found else None

    @property
    def in_words(self) -> str:
        count = len(self.lines)
        return f"{count} requirement{'s' * (count != 1)}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what nobody asked for."""
        if not self.added:
            return ()
        listed = " and ".join(self.added)
        are = "are" if len(self.added) > 1 else "is"
        return (f"{self.origin}: no MLflow that can load the model is named; {listed} {are} added",)


def read_requirements(
    files: Mapping[str, bytes], mlflow_version: str | None = None, python: str | None = None
) -> Requirements:
    """Make requirements of an artifact's files.

    Args:
        files: the bytes of those of ``FILES`` which the artifact has.
        mlflow_version: of MLmodel; that of the MLflow which is added where none is named.
        python: of MLmodel, for where no file names one.

    Raises:
        ArtifactError: something is refused; the sentence names the file and the line.
    """
    for name, data in files.items():
        if len(data) > FILES.get(name, 0):
            _refuse(f"{name} has more than {FILES.get(name, 0)} bytes")
    environment = _mapping_of(files, PYTHON_ENV)
    conda_python, conda_lines = _read_conda(_mapping_of(files, CONDA))
    found, origin = _lines_of(files, environment, conda_lines)
    if len(found) > _MOST_LINES:
        _refuse(f"{origin} has more than {_MOST_LINES} requirements")
    hashes: dict[tuple[str, str], set[str]] = {}
    lines = []
    for where, text in found:
        line, allowed = _requirement(where, text)
        lines.append(line)
        if allowed:
            hashes.setdefault(_pinned(where, line), set()).update(allowed)
    if UV_LOCK in files:
        for package, known in _read_uv_lock(_text(UV_LOCK, files[UV_LOCK])).items():
            asked = hashes.get(package, set())
            if asked and known and not asked & known:
                _refuse(f"{UV_LOCK} and {origin} have no hash of '{package[0]}' in common")
            hashes[package] = (asked & known) or asked or known
        origin = f"{origin}, {UV_LOCK}"
    lines = list(dict.fromkeys(lines))
    added = _missing({name_of(line) for line in lines}, mlflow_version)
    wanted = environment.get("python") if environment else None
    version = _python_of(PYTHON_ENV, wanted) or conda_python or _python_of("MLmodel", python)
    lock = "".join(f"{line}\n" for line in _locked(hashes)) or None
    return Requirements(version, (*lines, *added), lock, origin, added)


def name_of(line: str) -> str:
    """The name of a line's package, as all indexes write it."""
    found = re.match(_NAME, line)
    return normalised(found[0]) if found else ""


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Packages, versions and hashes of a lock, which names nothing else.

    Raises:
        ArtifactError: a line of it is another one.
    """
    found = {}
    for where, line in _logical_lines("the lock", text):
        wish, hashes = _requirement(where, line)
        found[_pinned(where, wish)] = hashes
    return found


def _refuse(why: str) -> NoReturn:
    raise ArtifactError(why, step=_STEP)


def _text(name: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        _refuse(f"{name} is no text (UTF-8)")
    if "\0" in text:
        _refuse(f"{name} is no text: it has bytes that are zero")
    return text


def _mapping_of(files: Mapping[str, bytes], name: str) -> Mapping[str, object]:
    if name not in files:
        return {}
    try:
        found = read_yaml(files[name])
    except (ValueError, RecursionError) as error:
        _refuse(f"{name} cannot be read: {' '.join(str(error).split())[:200]}")
    if not isinstance(found, dict):
        _refuse(f"{name} is not a mapping")
    return found


def _entries(found: Mapping[str, object], key: str, name: str) -> list[object]:
    entries = found.get(key)
    if entries is None:
        return []
    if not isinstance(entries, list):
        _refuse(f"{name}: {key} is not a list")
    return entries


def _lines_of(
    files: Mapping[str, bytes],
    environment: Mapping[str, object],
    conda: list[tuple[str, str]] | None,
) -> tuple[list[tuple[str, str]], str]:
    """Lines with their places, and the files that they are of, as MLflow itself chooses them."""
    if environment and any(environment.get(key) for key in ("dependencies", "build_dependencies")):
        lines, origin = _of_python_env(files, environment)
    elif REQUIREMENTS in files:
        lines, origin = _requirements_txt(files), REQUIREMENTS
    elif conda is not None:
        lines, origin = conda, CONDA
    else:
        _refuse(
            f"the model does not say which packages it needs: it has neither {REQUIREMENTS} nor"
            f" {PYTHON_ENV} nor {CONDA}; log it again, with pip_requirements"
        )
    return lines, origin


def _requirements_txt(files: Mapping[str, bytes]) -> list[tuple[str, str]]:
    return list(_logical_lines(REQUIREMENTS, _text(REQUIREMENTS, files[REQUIREMENTS])))


def _of_python_env(
    files: Mapping[str, bytes], environment: Mapping[str, object]
) -> tuple[list[tuple[str, str]], str]:
    lines: list[tuple[str, str]] = []
    origin = [PYTHON_ENV]
    for number, entry in enumerate(_entries(environment, "build_dependencies", PYTHON_ENV), 1):
        where = f"{PYTHON_ENV}, build dependency {number}"
        if name_of(_entry(where, entry)) not in _NOT_INSTALLED:
            lines.append((where, _entry(where, entry)))
    for number, entry in enumerate(_entries(environment, "dependencies", PYTHON_ENV), 1):
        where = f"{PYTHON_ENV}, dependency {number}"
        text = _entry(where, entry)
        if text.split() not in (["-r", REQUIREMENTS], [f"-r{REQUIREMENTS}"]):
            lines.append((where, text))
        elif REQUIREMENTS not in files:
            _refuse(f"{where} names {REQUIREMENTS}, which the model does not have")
        elif REQUIREMENTS not in origin:
            origin.append(REQUIREMENTS)
            lines += _requirements_txt(files)
    return lines, ", ".join(reversed(origin))


def _entry(where: str, entry: object) -> str:
    if not isinstance(entry, str) or "\n" in entry.strip() or len(entry) > _LONGEST:
        _refuse(f"{where} is not one line of text")
    return entry.strip()


def _read_conda(
    conda: Mapping[str, object],
) -> tuple[str | None, list[tuple[str, str]] | None]:
    """The version of Python, and the lines for pip; None where there is no such file."""
    if not conda:
        return None, None
    python, lines = None, []
    for number, entry in enumerate(_entries(conda, "dependencies", CONDA), 1):
        where = f"{CONDA}, dependency {number}"
        if isinstance(entry, dict) and set(entry) == {"pip"}:
            for index, line in enumerate(_entries(entry, "pip", CONDA), 1):
                place = f"{CONDA}, pip dependency {index}"
                lines.append((place, _entry(place, line)))
            continue
        found = _CONDA_ENTRY.fullmatch(_entry(where, entry))
        name = normalised(found["name"]) if found else ""
        if found and name == "python":
            exact = found["operator"] in ("=", "==") and not found["rest"].strip()
            if exact and _PYTHON.fullmatch((found["version"] or "").removesuffix(".*")):
                python = found["version"].removesuffix(".*")
        elif found and name == "setuptools" and found["operator"] and found["version"]:
            operator = found["operator"] if found["operator"] != "=" else "=="
            lines.append((where, f"{name}{operator}{found['version']}"))
        elif name not in (*_NOT_INSTALLED, "setuptools"):
            _refuse(
                f"{where}: '{_shown(_entry(where, entry))}' is a package of a conda channel, and"
                " environments are made of packages for pip: log the model again, with"
                " pip_requirements"
            )
    return python, lines


def _python_of(where: str, version: object) -> str | None:
    if version is None or version == "":
        return None
    if not isinstance(version, str) or not _PYTHON.fullmatch(version.strip()):
        _refuse(f"{where}: python '{_shown(str(version))}' is no version such as 3.11.7")
    return version.strip().removesuffix("+")


def _logical_lines(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Lines without comments, those that go on put together, with the place where each begins."""
    begun = 0
    parts: list[str] = []
    for number, physical in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        begun = begun if parts else number
        goes_on = physical.endswith("\\") and not physical.lstrip().startswith("#")
        parts.append(_COMMENT.sub("", physical[:-1] if goes_on else physical).strip())
        if goes_on and len(parts) <= _MOST_LINES:
            continue
        line, parts = " ".join(part for part in parts if part), []
        if line:
            yield f"{name}, line {begun}", line
    if line := " ".join(part for part in parts if part):
        yield f"{name}, line {begun}", line


def _requirement(where: str, text: str) -> tuple[str, tuple[str, ...]]:
    """One line as it is used, and the hashes that it allows."""
    if len(text) > _LONGEST:
        _refuse(f"{where} has more than {_LONGEST} characters")
    if text.startswith("-"):
        _refuse_option(where, text)
    hashes = tuple(sorted({found["hash"] for found in _HASH.finditer(text)}))
    line = " ".join(_HASH.sub("", text).split())
    if len(line) > _LONGEST_NAMED:
        _refuse(f"{where} has more than {_LONGEST_NAMED} characters")
    found = _LINE.fullmatch(line)
    if found is None:
        _refuse_line(where, line)
    extras = ",".join(sorted(normalised(one) for one in re.findall(_NAME, found["extras"] or "")))
    versions = re.sub(r"[\s()]", "", found["versions"] or "")
    if found["versions"] and found["versions"].count("(") != found["versions"].count(")"):
        _refuse_line(where, line)
    marker = " ".join((found["marker"] or "").split())
    made = normalised(found["name"]) + (f"[{extras}]" if extras else "") + versions
    return made + (f" ; {marker}" if marker else ""), hashes


def _pinned(where: str, line: str) -> tuple[str, str]:
    """Name and version of a line that has hashes."""
    found = _LINE.fullmatch(line)
    exact = _EXACT.fullmatch(found["versions"] or "") if found else None
    if found is None or exact is None:
        _refuse(f"{where}: '{_shown(line)}' has hashes, and not one exact version (==)")
    return normalised(found["name"]), exact["version"]


def _refuse_option(where: str, text: str) -> NoReturn:
    # What follows may be an address with a password.
    option = re.split(r"[\s=]", text, maxsplit=1)[0]
    if not option.startswith("--"):
        option = option[:2]
    shown = _shown(option)
    if option in ("-e", "--editable"):
        _refuse(f"{where}: {shown} names a folder of the publisher; {_CODE_PATHS}")
    if option in ("-r", "--requirement", "-c", "--constraint"):
        _refuse(
            f"{where}: {shown} names another file, which is not read: write its lines into"
            f" {REQUIREMENTS}, and log the model again"
        )
    for spellings, setting in _OPTIONS.items():
        if option in spellings:
            _refuse(
                f"{where}: {shown} is not followed, because the place that serves a model says"
                f" where packages come from: take the line away, and set {setting} of the option"
                " environments"
            )
    _refuse(f"{where}: the option {shown} is not followed: take it away")


_CODE_PATHS = "log what it has with code_paths, or publish it to an index"


def _refuse_line(where: str, line: str) -> NoReturn:
    name = re.match(_NAME, line)
    package = f"package '{_shown(name[0])}'" if name else "a package"
    path = re.search(r"\.(?:whl|zip|tar\.\w+|tgz)\b", line) or re.match(r"[./~\\]", line)
    if "://" in line or re.search(r"\S\s*@", line):
        _refuse(
            f"{where}: {package} is named by an address, which is not followed: name a version of"
            " it (==), and an index that has it in index_url of the option environments"
        )
    if path or "/" in line.partition(";")[0]:
        _refuse(f"{where} is a path on the publisher's machine; {_CODE_PATHS}")
    option = re.search(r"\s(--?[A-Za-z][\w-]*)", line)
    if option:
        _refuse(f"{where}: the option {_shown(option[1])} is not followed: take it away")
    _refuse(f"{where}: '{_shown(line)}' is no requirement that pip understands")


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _missing(names: set[str], mlflow_version: str | None) -> tuple[str, ...]:
    """MLflow, and what it needs of others to load a model."""
    added = []
    if not names & {*_MLFLOW}:
        known = mlflow_version and _RELEASE.fullmatch(mlflow_version)
        added.append(f"mlflow-skinny=={mlflow_version}" if known else "mlflow-skinny")
    if not names & {"mlflow", "pandas"}:
        added.append("pandas")
    return tuple(added)


def _locked(hashes: Mapping[tuple[str, str], Iterable[str]]) -> Iterator[str]:
    for name, version in sorted(hashes):
        listed = sorted(hashes[name, version])
        yield " ".join([f"{name}=={version}", *(f"--hash={one}" for one in listed)])


def _read_uv_lock(text: str) -> dict[tuple[str, str], set[str]]:
    """Packages and versions with the hashes of their files. uv writes a line for each fact; what
    is written otherwise is not read.
    """
    if '"""' in text or "'''" in text or not re.search(r"^version = 1$", text, re.MULTILINE):
        _refuse(
            f"{UV_LOCK} is not what uv writes (version 1): run uv lock, and log the model again"
        )
    found: dict[tuple[str, str], set[str]] = {}
    for table in re.split(r"^\[\[package\]\]\s*$", text, flags=re.MULTILINE)[1:]:
        # What follows a further header tells of something else.
        facts = re.split(r"^\[", table, maxsplit=1, flags=re.MULTILINE)[0]
        said = {match["key"]: match["value"] for match in _each_line(_LOCK_TEXT, facts)}
        source = next(_each_line(_LOCK_SOURCE, facts, whole=False), None)
        name = said.get("name", "")
        if source is None or not re.fullmatch(_NAME, name):
            _refuse(f"{UV_LOCK}: a package has no name, or no source")
        if source["kind"] in ("virtual", "editable", "directory") and source["value"] == ".":
            continue
        if source["kind"] != "registry":
            _refuse(
                f"{UV_LOCK}: package '{_shown(name)}' is not of an index (but of"
                f" '{source['kind']}'); {_CODE_PATHS}"
            )
        version = said.get("version", "")
        if not _EXACT.fullmatch(f"=={version}"):
            _refuse(f"{UV_LOCK}: package '{_shown(name)}' has no version")
        known = found.setdefault((normalised(name), version), set())
        known |= {match["hash"] for match in _LOCK_HASH.finditer(facts)}
        if len(found) > _MOST_PACKAGES:
            _refuse(f"{UV_LOCK} has more than {_MOST_PACKAGES} packages")
    return found


def _each_line(
    pattern: re.Pattern[str], text: str, *, whole: bool = True
) -> Iterator[re.Match[str]]:
    for line in text.splitlines():
        if match := pattern.fullmatch(line) if whole else pattern.match(line):
            yield match
