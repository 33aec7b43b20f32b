# SPDX-License-Identifier: Apache-2.0
"""What docs/architecture.md settles, as far as a program can see it."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "plugins/module_utils/_delivery"
PACKAGE = "ansible_collections.mlops.triton"

# Which packages of the core may import which, beside "", which is what everything may use.
# A package of another one, such as repository.s3, is a part of it.
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "domain": set(),
    "planning": {"domain"},
    "formats": {"domain"},
    "readers": {"formats", "domain"},
    "flavors": {"readers", "formats", "domain"},
    "artifacts": {"domain"},
    "registry": {"artifacts", "domain"},
    "triton": {"domain"},
    "trust": {"domain"},
    "worker": set(),
    "environments": {"domain"},
    "repository": {"domain"},
    "execution": {
        "planning",
        "repository",
        "triton",
        "artifacts",
        "flavors",
        "worker",
        "domain",
    },
    "publication": {
        "registry",
        "artifacts",
        "flavors",
        "readers",
        "formats",
        "trust",
        "domain",
    },
    "orchestration": {
        "execution",
        "planning",
        "repository",
        "triton",
        "registry",
        "artifacts",
        "flavors",
        "readers",
        "formats",
        "trust",
        "environments",
        "domain",
    },
}

# Libraries that only some files may know; all of them are imported inside functions.
THIRD_PARTY = {
    "mlflow": {
        "registry.connection",
        "registry.credentials",
        "registry.redirects",
        "worker.pyfunc_worker",
    },
    "tritonclient": {
        "domain.config_pbtxt",
        "triton.http_transport",
        "triton.grpc_transport",
        "triton.inference",
    },
    "google": {"domain.config_pbtxt"},
    "requests": {"registry.connection", "registry.redirects"},
    "gevent": {"triton.http_transport", "triton.watch"},
    "geventhttpclient": {"triton.http_transport"},
    "numpy": {
        "formats.pickled_arrays",
        "readers.tasks",
        "execution.pyfunc_cases",
        "execution.verification",
        "publication.comparison",
        "triton.inference",
        "triton.pyfunc_requests",
        "triton.pyfunc_values",
        "triton.tensors",
        "worker.pyfunc_worker",
        "worker.stub",
    },
    "pandas": {"worker.pyfunc_worker"},
    "triton_python_backend_utils": {"worker.stub"},
    "treelite": {"formats.sklearn_to_treelite", "publication.comparison", "readers.tasks"},
    "xgboost": {"publication.comparison"},
    "lightgbm": {"publication.comparison"},
    "boto3": {"repository.s3.boto3_bucket"},
    "botocore": {"repository.s3.boto3_bucket"},
    "yaml": {"domain.yaml_text", "formats.mlmodel"},
    "model_signing": {"trust.signatures", "trust.signing"},
    "uv": {"environments.uv_program"},
    "cryptography": {"trust.signatures", "trust.signing"},
}
# What the start wrapper runs with the Python of a container, and what reads anybody's file.
STDLIB_ONLY = {
    "disk",
    "no_follow",
    "process",
    "rights",
    "domain.fields",
    "domain.record",
    "domain.journal",
    "domain.marker",
    "repository.recovery",
    "repository.ownership",
    "repository.retention",
    "repository.scratch",
    "repository.state_store",
    "repository.comparison",
    "repository.s3.changes",
    "repository.s3.location",
    "repository.s3.lock",
    "repository.s3.signed_bucket",
    "repository.s3.state_store",
    "formats.given_file",
    "formats.onnx",
    "formats.lightgbm_text",
    "formats.npy_file",
    "formats.pickle_program",
    "formats.sklearn_archive",
    "formats.trees",
    "formats.ubjson",
    "formats.xgboost_document",
    "worker.pyfunc_wire",
}
# What is served with a model of MLflow, and runs in whatever Python the server and the model have.
SERVED = {"worker.stub", "worker.pyfunc_worker", "worker.pyfunc_wire"}
# Packages that do no I/O at all, and what they would do it with.
PURE = {"domain", "planning"}
IO = {
    "http",
    "io",
    "os",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib.request",
}
# The only packages that may change anything: what is deployed, and what is registered. What they
# change it with is named by an effect.
CHANGES = {"execution", "publication"}
ACTS = {"disk", "artifacts", "registry", "triton", "repository", "flavors", "environments"}

# What a repository, its store and a server are told to do.
CHANGE_A_TARGET = {
    "begin",
    "clear_staging",
    "ensure",
    "load",
    "lock",
    "put",
    "recover",
    "remove",
    "remove_journal",
    "replace_config",
    "retire",
    "set_permissions",
    "touch",
    "unload",
    "write_journal",
    "write_record",
}

LONGEST_FUNCTION = 60
MOST_ANY = 1
"""In 100 lines of the core."""
NEEDS_HEADER = {".cfg", ".ini", ".j2", ".md", ".py", ".sh", ".toml", ".yaml", ".yml"}
NEEDS_HEADER_BY_NAME = {"Makefile", "run", ".ansible-lint", ".yamllint"}
GENERATED = {"CHANGELOG.md", "changelogs/changelog.yaml", "changelogs/.plugin-cache.yaml"}
# What only Ansible can load or run is the GPL's too; sanity demands it of plugins, even where they
# import nothing. The files of a role are programs that run on hosts without Ansible.
ANSIBLE_CONTENT = re.compile(
    r"plugins/(action|callback|doc_fragments|filter|lookup|modules|plugin_utils|test)/|(playbooks|molecule)/"
    r"|roles/[^/]+/(?!files/)"
)
# Written with a class of one letter, so that this file does not find itself.
PRIVATE_TEXT = re.compile(
    r"/[w]ork/|/[r]oot/|\b[p]ypi\.org|[p]ythonhosted\.org|/[o]pt/(pypi|wheels)"
)


@cache
def project_files() -> tuple[Path, ...]:
    """Tracked files and new ones that git does not ignore."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        env=clean,
        check=True,
        capture_output=True,
    ).stdout
    paths = (ROOT / os.fsdecode(name) for name in sorted(set(listing.split(b"\0"))) if name)
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_files() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py"]


def core_files() -> list[Path]:
    return [path for path in python_files() if path.is_relative_to(CORE)]


def dotted(path: Path) -> str:
    """``domain.record`` for a file of the core; a package's own file has the package's name."""
    parts = path.relative_to(CORE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def package(path: Path) -> str:
    """The package that a file of the core belongs to: "" for the root."""
    return path.relative_to(CORE).parts[0] if path.parent != CORE else ""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), relative(path))


def absolute_imports(node: ast.AST) -> Iterator[str]:
    """The top package of each ``import x.y`` and ``from x.y import z`` below ``node``."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield str(child.module).partition(".")[0]


@cache
def neighbours(path: Path) -> frozenset[Path]:
    """The files of the core that this one imports, inside functions too."""
    found: set[Path] = set()
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = path.parents[node.level - 1]
        base = folder.joinpath(*node.module.split(".")) if node.module else folder
        if base.with_suffix(".py").is_file():
            found.add(base.with_suffix(".py"))
        else:  # a file of a package, or what the package itself has
            files = [base / f"{alias.name}.py" for alias in node.names]
            found |= {one if one.is_file() else base / "__init__.py" for one in files}
    return frozenset(found - {path})


def each(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("path", paths, ids=relative)


def test_files_were_found() -> None:
    """A test over an empty list passes; this one does not."""
    assert core_files()
    assert len(project_files()) > len(python_files()) > len(core_files())


# --- the core -------------------------------------------------------------------------------------


def test_every_package_has_a_rule_and_a_row() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    found = {package(path) for path in core_files()}
    assert found == set(MAY_IMPORT), "give each package a rule in MAY_IMPORT of this test"
    assert not [name for name in found - {""} if f"| `{name}/` |" not in page]


@each([path for path in core_files() if path.name == "__init__.py"])
def test_a_package_says_what_each_of_its_files_is_for(path: Path) -> None:
    said = set(re.findall(r"``(\w+)``", ast.get_docstring(tree(path)) or ""))
    there = {child.stem for child in path.parent.iterdir() if child.suffix == ".py"} - {"__init__"}
    # The root's packages are the page's.
    folders = {child.parent.name for child in path.parent.glob("*/__init__.py")}
    assert there <= said
    assert path.parent == CORE or folders <= said


@each(core_files())
def test_core_imports_only_what_its_package_may(path: Path) -> None:
    assert all(neighbour.is_file() for neighbour in neighbours(path))
    allowed = MAY_IMPORT[package(path)] | {"", package(path)}
    assert {package(neighbour) for neighbour in neighbours(path)} <= allowed


def test_core_has_no_circles() -> None:
    # static_order raises CycleError and names the circle.
    assert list(TopologicalSorter({path: neighbours(path) for path in core_files()}).static_order())
    assert list(TopologicalSorter(MAY_IMPORT).static_order())


@each(core_files())
def test_core_imports_stay_inside(path: Path) -> None:
    depth = len(path.relative_to(CORE).parts)
    levels = {node.level for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)}
    assert levels <= set(range(depth + 1)), "a relative import must not leave the core"
    packages = set(absolute_imports(tree(path)))
    assert not packages & {"ansible", "ansible_collections"}, (
        "relative imports only, and nothing of Ansible"
    )
    foreign = packages - sys.stdlib_module_names
    assert not (foreign if dotted(path) in STDLIB_ONLY else foreign - set(THIRD_PARTY))
    assert not {name for name in foreign if dotted(path) not in THIRD_PARTY.get(name, set())}


@each(sorted((ROOT / "plugins" / "modules").glob("*.py")))
def test_a_module_looks_at_its_python_first(path: Path) -> None:
    """What comes after does not parse on a Python that Ansible takes and the core does not."""
    ours = [
        node for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom) and node.level
    ]
    first = min(ours, key=lambda node: node.lineno)
    assert first.module == "module_utils" and [one.name for one in first.names] == ["_options"]
    utilities = ROOT / "plugins" / "module_utils"
    options = tree(utilities / "_options.py")
    called = [
        node.lineno
        for node in options.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]
    imported = [node for node in options.body if isinstance(node, ast.ImportFrom) and node.level]
    assert [node.module for node in imported] == ["_python"]
    assert called == [imported[0].lineno + 2]
    for file in (path, utilities / "_options.py", utilities / "_python.py"):
        ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 8))


@each([path for path in core_files() if dotted(path) in SERVED])
def test_what_is_served_with_a_model_stands_alone(path: Path) -> None:
    """Three files in a version folder; Python 3.8 reads them."""
    assert {dotted(other) for other in neighbours(path)} <= {"worker.pyfunc_wire"}
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_permissions_are_used() -> None:
    """A permission that nobody needs hides who gets it next."""
    files = {dotted(path): path for path in core_files()}
    for library, names in THIRD_PARTY.items():
        users = {name for name in names if library in set(absolute_imports(tree(files[name])))}
        assert users == names, f"{library}: {names - users} does not import it"
    assert not STDLIB_ONLY - set(files)
    for name, allowed in MAY_IMPORT.items():
        used = {
            package(other)
            for path in core_files()
            if package(path) == name
            for other in neighbours(path)
        }
        assert allowed <= used, f"{name} imports nothing of {allowed - used}"


@each(core_files())
def test_core_imports_libraries_where_it_needs_them(path: Path) -> None:
    """At the top of a file they would be a traceback on a bare host."""
    inside: set[ast.AST] = set()
    for node in ast.walk(tree(path)):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if typing_only or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside.update(ast.walk(node))
    top = {
        name
        for node in ast.walk(tree(path))
        if node not in inside and isinstance(node, (ast.Import, ast.ImportFrom))
        for name in absolute_imports(node)
    }
    assert top <= sys.stdlib_module_names


def test_reading_what_is_deployed_imports_nothing_that_plans_or_changes() -> None:
    """Short commands take as long as their imports."""
    code = (
        f"import sys, {PACKAGE}.plugins.module_utils._delivery.orchestration.inspection\n"
        "print(*(name.partition('._delivery.')[2] for name in sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "orchestration.inspection" in said
    forbidden = ("execution.", "flavors.", "formats.", "publication.", "artifacts.", "registry.")
    assert not [name for name in said if name.startswith(forbidden)]
    assert not {"planning.planner", "orchestration.delivery", "orchestration.plan_builder"} & {
        *said
    }


@each([path for path in core_files() if package(path) in PURE])
def test_domain_and_planning_do_no_io(path: Path) -> None:
    imported = {
        alias.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {str(node.module) for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)}
    assert not imported & IO
    names = {node.id for node in ast.walk(tree(path)) if isinstance(node, ast.Name)}
    assert not names & {"open", "input", "print"}
    assert not {dotted(other) for other in neighbours(path)} & {"disk", "process", "effects"}


@each([path for path in core_files() if package(path) not in CHANGES | ACTS | {""}])
def test_only_what_acts_names_an_effect(path: Path) -> None:
    assert "effects" not in {dotted(other) for other in neighbours(path)}


@each([path for path in core_files() if package(path) == "orchestration"])
def test_orchestration_leaves_changes_to_execution(path: Path) -> None:
    """It observes, plans and hands over; what is planned again under the lock is handed over as a
    value.
    """
    calls = {
        node.func.attr
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not calls & CHANGE_A_TARGET


def test_what_changes_a_target_has_these_names() -> None:
    defined = {
        node.name
        for path in core_files()
        if package(path) in ("repository", "triton")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
    }
    assert defined >= CHANGE_A_TARGET


@each(
    [
        path
        for path in python_files()
        if relative(path).startswith(("plugins/module_utils/", "plugins/modules/"))
    ]
)
def test_ansiballz_can_follow_the_imports(path: Path) -> None:
    """It ships what static imports reach; what a program assembles at run time stays behind."""
    assert not set(absolute_imports(tree(path))) & {"importlib", "pkgutil", "runpy"}
    calls = {
        node.func.id
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"__import__", "eval", "exec"}


@each(
    [
        path
        for path in python_files()
        if relative(path).startswith("plugins/") and path != CORE / "errors.py"
    ]
)
def test_an_error_steers_by_its_class(path: Path) -> None:
    """What an error carries for its user is no interface: neither ``.extra``, nor a key of
    ``.facts``.
    """
    read = [
        ast.unparse(node)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in ("extra", "_facts")
    ]
    for node in ast.walk(tree(path)):
        asked = None
        if isinstance(node, ast.Subscript):
            asked = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            asked = node.func.value if node.func.attr == "get" else None
        if isinstance(asked, ast.Attribute) and asked.attr == "facts":
            read.append(ast.unparse(node))
    assert not read


def test_no_data_among_the_code() -> None:
    assert not [
        relative(path)
        for path in project_files()
        if relative(path).startswith("plugins/module_utils/") and path.suffix != ".py"
    ]


# --- the shells -----------------------------------------------------------------------------------


@each(
    [
        path
        for path in python_files()
        if relative(path).startswith("plugins/mlflow_deployments/")
        or path.name == "publish_model_to_mlflow.py"
        or re.match(r"roles/[^/]+/files/", relative(path))
    ]
)
def test_shells_beside_ansible_do_not_import_it(path: Path) -> None:
    assert "ansible" not in set(absolute_imports(tree(path)))


@each([path for path in python_files() if relative(path).startswith("plugins/modules/")])
def test_modules_leave_the_work_to_the_core(path: Path) -> None:
    assert not set(absolute_imports(tree(path))) - {
        "ansible",
        "__future__",
        *sys.stdlib_module_names,
    }


# --- options and their documentation --------------------------------------------------------------


def option_groups() -> dict[str, dict[str, Any]]:
    options = importlib.import_module(f"{PACKAGE}.plugins.module_utils._options")
    return {
        name.lower(): value
        for name, value in vars(options).items()
        if name.isupper() and isinstance(value, dict)
    }


def fragment(name: str) -> dict[str, Any]:
    module = importlib.import_module(f"{PACKAGE}.plugins.doc_fragments.{name}")
    documentation = yaml.safe_load(module.ModuleDocFragment.DOCUMENTATION)
    return dict(documentation.get("options") or {})


def contract(option: dict[str, Any], nested: str) -> dict[str, Any]:
    """What a user may rely on, in one form for argument specs (``options``) and documentation
    (``suboptions``).
    """
    facts = {
        key: option[key]
        for key in ("elements", "default", "choices", "aliases", "required")
        if option.get(key) not in (None, False)
    }
    children = {name: contract(child, nested) for name, child in (option.get(nested) or {}).items()}
    return {
        "type": option.get("type", "str"),
        **facts,
        **({"children": children} if children else {}),
    }


@pytest.mark.parametrize("group", sorted(option_groups()))
def test_option_group_equals_its_fragment(group: str) -> None:
    spec = {name: contract(option, "options") for name, option in option_groups()[group].items()}
    documented = {name: contract(option, "suboptions") for name, option in fragment(group).items()}
    assert spec == documented


@pytest.mark.parametrize("group", sorted(option_groups()))
def test_documentation_names_the_environment(group: str) -> None:
    documented = fragment(group)
    for name, option in option_groups()[group].items():
        for variable in option.get("fallback", (None, []))[1]:
            assert f"E({variable})" in str(documented[name]["description"]), (
                f"{name} does not say that it reads {variable}"
            )


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (ROOT / "plugins/doc_fragments").glob("*.py"))
)
def test_fragment_with_options_has_a_group(name: str) -> None:
    assert not fragment(name) or name in option_groups()


def test_there_are_option_groups() -> None:
    assert {"model", "registry", "repository", "server", "wait"} <= set(option_groups())


# --- roles ----------------------------------------------------------------------------------------

ROLES = sorted(path.parent.parent.name for path in (ROOT / "roles").glob("*/tasks/main.y*ml"))


def role_file(role: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "roles" / role / name).read_text(encoding="utf-8")) or {}


@pytest.mark.parametrize("role", ROLES)
def test_role_defaults_equal_its_specification(role: str) -> None:
    entries = role_file(role, "meta/argument_specs.yml")["argument_specs"]
    documented: dict[str, Any] = {}
    for entry in entries.values():
        documented.update(entry.get("options") or {})
    defaults = role_file(role, "defaults/main.yml")
    assert set(defaults) <= set(documented), "defaults that the specification does not know"
    promised = {
        name: option["default"]
        for name, option in documented.items()
        if option.get("default") is not None
    }
    assert promised == {name: value for name, value in defaults.items() if value is not None}


@pytest.mark.parametrize("role", ROLES)
def test_role_options_carry_its_name(role: str) -> None:
    for entry in role_file(role, "meta/argument_specs.yml")["argument_specs"].values():
        assert not [name for name in entry.get("options") or {} if not name.startswith(f"{role}_")]


def test_there_are_roles() -> None:
    assert {"mlflow", "triton"} <= set(ROLES)


# --- every file -----------------------------------------------------------------------------------


def licence(path: Path) -> str:
    imports = set(absolute_imports(tree(path))) if path.suffix == ".py" else set()
    return (
        "GPL-3.0-or-later"
        if "ansible" in imports or ANSIBLE_CONTENT.match(relative(path))
        else "Apache-2.0"
    )


@each(
    [
        path
        for path in project_files()
        if (path.suffix in NEEDS_HEADER or path.name in NEEDS_HEADER_BY_NAME)
        and not path.name.endswith(".json.j2")
        and relative(path) not in GENERATED
    ]
)
def test_licence_header(path: Path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:5]
    found = [
        match.group(1)
        for line in head
        if (match := re.search(r"SPDX-License-Identifier: ([\w.-]+)", line))
    ]
    assert found == [licence(path)]


def test_any_stays_at_the_edges() -> None:
    """JSON, MLflow, protobuf and tritonclient have no types; what comes of them has."""
    uses = lines = 0
    for path in core_files():
        lines += len(path.read_text(encoding="utf-8").splitlines())
        uses += sum(
            isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree(path))
        )
    assert uses * 100 < lines * MOST_ANY


@each(python_files())
def test_functions_are_short(path: Path) -> None:
    long = [
        f"{node.name} has {length} lines"
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := int(node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not long


def test_nothing_private_to_a_machine() -> None:
    found = []
    for path in project_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{relative(path)}: {match.group()}" for match in PRIVATE_TEXT.finditer(text)]
    assert not found


def test_wheel_asks_for_what_the_core_asks_for() -> None:
    libraries = importlib.import_module(f"{PACKAGE}.plugins.module_utils._delivery.libraries")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for requirement in libraries.MINIMUM.values():
        if any(sign in requirement for sign in "<>="):
            assert f'"{requirement}"' in project
