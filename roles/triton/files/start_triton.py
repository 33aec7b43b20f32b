# SPDX-License-Identifier: Apache-2.0
"""Start Triton with exactly the models that the deployment records want.

    python start_triton.py --config server.json [--check | --prepare | --settle | --print |
    --health]

Native runtime: run it with the Python of the virtual environment that holds nvidia-pytriton.
Container runtime: any Python 3.8 or newer inside the container. Only the standard library is used.

Keys of the JSON file (unknown ones are refused, so that a typing error cannot go unnoticed):

    runtime             "native" (default) or "container"
    model_repository    folder of the models, or an s3:// location as Triton spells it; credentials
    come from where Triton
                        finds them: TRITON_CLOUD_CREDENTIAL_PATH, AWS_ACCESS_KEY_ID and its like,
                        the AWS credentials file, the instance, each of them also as a key of
                        environment
    state_dir           folder with records/ and journals/; default: what the marker file
                        <model_repository>/.mlops-triton.json says, else no records
    tritonserver        the program; default: the one of pytriton, or
    /opt/tritonserver/bin/tritonserver
    backend_sources     folder that holds onnxruntime/ and fil/; default: backends/ beside this file
    backend_directory   folder which this program fills with the Python backend, its stub and
    backend_sources;
                        native runtime only (in a container Triton has its own)
    cache_directory     folder of Triton's response cache libraries; default: those of pytriton
    http_address, http_port, grpc_address, grpc_port, metrics_address, metrics_port
                        default 127.0.0.1 and 8000, 8001, 8002; a port of 0 or false switches that
                        service off
    extra_args          list of further arguments for tritonserver
    environment         further environment variables of the server
    log_file            file that gets what the server prints, appended; default: stdout and stderr
    as they are
    admin_key           {"name": header, "secret_file": path}: the model-repository, model-config
    and shared-memory
                        interfaces then want that header
    shm_region_prefix   prefix of the Python backend's shared memory, to tell the servers of one
    host apart
    exit_timeout        seconds that a stop waits for requests in flight
    http_threads        threads of the HTTP service; a load over HTTP stalls the clients that share
    a thread with it grpc_tls            {"certificate": path, "key": path, "client_ca": path}: gRPC
    is served with TLS; with client_ca
                        (which may be left out) clients must show a certificate of it
    run_as              [uid, gid] which the server runs as; this program, started as root, takes
    them on

--health asks the running server as a health check of a container does: it lives, and every model
that a record wants loaded is ready. /v2/health/ready is not asked: it is 400 while any model loads
or unloads, and stays so after a failed load of a new model, whereas a model which is reloaded stays
ready, because its old version answers until the new one does; and a new model has no record before
it has been loaded. Where HTTP is off, only the port of gRPC is tried.

tritonserver takes the secret of an admin key on its command line and in no other way (no file, no
environment
variable), so every user of the host who may list processes can read it there. Mount /proc with
hidepid=2, or keep the host to itself, where that matters. This program never prints it.

Exit code 75: the object store of the repository does not answer or refuses; another start may
succeed.
Exit code 78: the configuration or the host does not allow a start; stderr says why in one sentence
each.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import http.client
import importlib.util
import json
import os
import platform
import re
import socket
import sys
import sysconfig
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

EXIT_CONFIG = 78
EXIT_LATER = 75
STORE_SECONDS = 30.0
MARKER = ".mlops-triton.json"
SCHEMA = 1
CONTAINER_TRITONSERVER = "/opt/tritonserver/bin/tritonserver"
# The stub of the PyPI server was built against numpy 1, which has no wheels for Python 3.13.
PYTHONS = ((3, 9), (3, 12))
# The role copies the core's standard-library part beside this file; in a checkout or a wheel it is
# where it always is.
CORE_PLACES = (
    Path(__file__).resolve().parent,
    *(above / "plugins" / "module_utils" for above in list(Path(__file__).resolve().parents)[3:4]),
)
RESTRICTED = "model-repository,model-config,shared-memory"
MASK = "********"
LEFTOVER_SECONDS = 600
HEALTH_SECONDS = 5
NO_BYTECODE_NAME = "mlops_triton_no_bytecode.pth"
# Python would write __pycache__ into the model's folder, and Triton takes any new file there for a
# changed model: the next load, which should do nothing, would initialise it again. The stub runs
# Python isolated, so that environment variables do not reach it; what the environment's
# site-packages say does.
NO_BYTECODE = (
    b"import sys; sys.dont_write_bytecode = sys.dont_write_bytecode or bool(sys.flags.isolated)\n"
)


class StartError(Exception):
    """The server cannot be started; the text is one sentence for the user."""


class LaterError(Exception):
    """The server cannot be started now; the text is one sentence for the user."""


@dataclass(frozen=True)
class Service:
    """One listening service of Triton; port None means switched off."""

    name: str
    address: str
    port: Optional[int]


@dataclass(frozen=True)
class Settings:
    model_repository: str
    runtime: str = "native"
    state_dir: Optional[str] = None
    tritonserver: Optional[str] = None
    backend_sources: Optional[str] = None
    backend_directory: Optional[str] = None
    cache_directory: Optional[str] = None
    http_address: str = "127.0.0.1"
    http_port: Any = 8000
    grpc_address: str = "127.0.0.1"
    grpc_port: Any = 8001
    metrics_address: str = "127.0.0.1"
    metrics_port: Any = 8002
    extra_args: List[str] = field(default_factory=list)
    environment: Dict[str, str] = field(default_factory=dict)
    log_file: Optional[str] = None
    admin_key: Optional[Dict[str, str]] = None
    shm_region_prefix: Optional[str] = None
    exit_timeout: Optional[int] = None
    http_threads: Optional[int] = None
    grpc_tls: Optional[Dict[str, str]] = None
    run_as: Optional[List[int]] = None

    @property
    def native(self) -> bool:
        return self.runtime == "native"

    @property
    def remote_repository(self) -> bool:
        return "://" in self.model_repository

    def services(self) -> Tuple[Service, ...]:
        return tuple(
            Service(name, getattr(self, name + "_address"), getattr(self, name + "_port") or None)
            for name in ("http", "grpc", "metrics")
        )


class Installation(NamedTuple):
    """The PyPI server inside a virtual environment."""

    server: Path
    backends: Path
    caches: Path
    stubs: Path
    libraries: Path


class Command(NamedTuple):
    argv: List[str]
    environment: Dict[str, str]
    warnings: List[str]


# ---- settings ------------------------------------------------------------------------------------


def read_settings(path: "str | os.PathLike[str]") -> Settings:
    try:
        with open(path, encoding="utf-8") as stream:
            values = json.load(stream)
    except OSError as err:
        raise StartError(f"{path}: cannot be read ({err.strerror}).") from None
    except ValueError as err:
        raise StartError(f"{path}: is not JSON ({err}).") from None
    return make_settings(values, str(path))


def make_settings(values: Any, origin: str = "settings") -> Settings:
    if not isinstance(values, dict):
        raise StartError(f"{origin}: must hold one JSON object.")
    unknown = sorted(set(values) - {item.name for item in fields(Settings)})
    if unknown:
        raise StartError(f"{origin}: unknown key {', '.join(unknown)}.")
    given = {key: value for key, value in values.items() if value is not None}
    if not isinstance(given.get("model_repository"), str) or not given["model_repository"]:
        raise StartError(f"{origin}: model_repository is missing.")
    settings = Settings(**given)
    if settings.runtime not in ("native", "container"):
        raise StartError(
            f"{origin}: runtime must be native or container, not {settings.runtime!r}."
        )
    for service in settings.services():
        port = service.port
        if port is not None and (
            isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536
        ):
            raise StartError(
                f"{origin}: {service.name}_port must be a port number, 0 or false, not {port!r}."
            )
    if not settings.services()[0].port and not settings.services()[1].port:
        raise StartError(f"{origin}: http_port and grpc_port are both switched off.")
    if settings.native and not settings.backend_directory:
        raise StartError(f"{origin}: backend_directory is missing.")
    if not isinstance(settings.extra_args, list) or not isinstance(settings.environment, dict):
        raise StartError(f"{origin}: extra_args must be a list and environment an object.")
    if settings.admin_key is not None and set(settings.admin_key) != {"name", "secret_file"}:
        raise StartError(f"{origin}: admin_key must have the keys name and secret_file.")
    if settings.grpc_tls is not None and {*settings.grpc_tls, "client_ca"} != {
        "certificate",
        "key",
        "client_ca",
    }:
        raise StartError(
            f"{origin}: grpc_tls must have the keys certificate and key, and may have client_ca."
        )
    if settings.run_as is not None and not (
        len(settings.run_as) == 2 and all(isinstance(number, int) for number in settings.run_as)
    ):
        raise StartError(f"{origin}: run_as must be the numbers of a user and a group.")
    return settings


def read_secret(admin_key: Dict[str, str]) -> str:
    path = admin_key["secret_file"]
    try:
        secret = Path(path).read_text(encoding="utf-8").strip()
    except OSError as err:
        raise StartError(
            f"The secret file {path} of the admin key cannot be read ({err.strerror})."
        ) from None
    if not re.fullmatch(r"[!-~]+", secret):
        raise StartError(f"The secret file {path} must hold one word of printable ASCII.")
    return secret


# ---- the host ------------------------------------------------------------------------------------


def find_installation() -> Installation:
    spec = importlib.util.find_spec("pytriton")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise StartError(
            f"nvidia-pytriton is not installed for {sys.executable}: install it there, or use the"
            " Python that has it."
        )
    package = Path(places[0])
    base = package / "tritonserver"
    found = Installation(
        server=base / "bin" / "tritonserver",
        backends=base / "backends",
        caches=base / "caches",
        stubs=base / "python_backend_stubs",
        libraries=package.parent / "nvidia_pytriton.libs",
    )
    for path in (found.server, found.backends / "python", found.libraries):
        if not path.exists():
            raise StartError(f"nvidia-pytriton is incomplete: {path} is missing; install it again.")
    return found


def stub_of_this_python(found: Installation) -> Path:
    stub = found.stubs / "{}.{}".format(*sys.version_info[:2]) / "triton_python_backend_stub"
    if not stub.exists():
        raise StartError(f"nvidia-pytriton is incomplete: {stub} is missing; install it again.")
    return stub


def libpython_folder() -> Optional[Path]:
    """Folder of the shared libpython of the running interpreter, or None if there is none."""
    name = sysconfig.get_config_var("INSTSONAME") or ""
    if not name.startswith("libpython") or ".so" not in name:
        # A static build names its archive here; distributions ship the shared library as a package
        # of its own.
        name = "libpython{}.{}.so.1.0".format(*sys.version_info[:2])
    places = [
        sysconfig.get_config_var("LIBDIR"),
        os.path.join(
            sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("MULTIARCH") or ""
        ),
        os.path.join(sys.base_prefix, "lib"),
    ]
    for place in places:
        if place and os.path.exists(os.path.join(place, name)):
            return Path(place)
    try:
        ctypes.CDLL(name)
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                path = line.rstrip("\n").partition("/")[2]
                if os.path.basename(path) == name:
                    return Path("/" + path).parent
    except OSError:
        pass
    return None


def glibc_version() -> Optional[Tuple[int, int]]:
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return None
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2))) if match else None


def installed_version(distribution: str) -> Optional[str]:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def native_problems() -> List[str]:
    """What of this host or this Python keeps the PyPI server from working, one sentence each."""
    problems = []
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        problems.append(
            f"The PyPI Triton runs on Linux x86_64 only, this is {platform.system()}"
            f" {platform.machine()}: use the container runtime."
        )
    glibc = glibc_version()
    if glibc is None or glibc < (2, 35):
        have = "{}.{}".format(*glibc) if glibc else "another C library"
        problems.append(
            f"The PyPI Triton needs glibc 2.35 or newer, this host has {have}: use a newer system "
            "(Debian 12, Ubuntu 22.04, RHEL 10) or the container runtime."
        )
    version = sys.version_info[:2]
    if not PYTHONS[0] <= version <= PYTHONS[1]:
        problems.append(
            "The Triton environment needs Python 3.9 to 3.12, this is {}.{}: make it with one of"
            " those.".format(*version)
        )
    if libpython_folder() is None:
        problems.append(
            "The shared library libpython{0}.{1}.so.1.0 is missing: install it (Debian and Ubuntu:"
            " apt-get install libpython{0}.{1}; Fedora and RHEL: dnf install python3-libs), or use"
            " a Python built with --enable-shared.".format(*version)
        )
    numpy = installed_version("numpy")
    if numpy is None or int(numpy.split(".")[0]) >= 2:
        problems.append(
            f"The Triton environment needs numpy 1 (numpy<2), it has {numpy or 'none'}: every"
            ' inference would fail; install "numpy<2" there.'
        )
    try:
        stub_of_this_python(find_installation())
    except StartError as err:
        problems.append(str(err))
    return problems


def port_problems(settings: Settings) -> List[str]:
    problems = []
    taken: Dict[int, str] = {}
    for service in settings.services():
        if service.port is None:
            continue
        key = service.name + "_port"
        if service.port in taken:
            problems.append(
                f"{key} and {taken[service.port]} are both {service.port}: give them different"
                " ports."
            )
            continue
        taken[service.port] = key
        reason = _port_reason(service.address, service.port)
        if reason:
            problems.append(f"Port {service.port} on {service.address} ({key}) {reason}.")
    return problems


def _port_reason(address: str, port: int) -> Optional[str]:
    try:
        family, kind, proto, _name, where = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, proto) as probe:
            # As the server does: connections in TIME_WAIT do not keep a port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except socket.gaierror:
        return "cannot be used: the address is unknown"
    except OSError as err:
        if err.errno == errno.EADDRINUSE:
            return "is taken by another program: stop that one or choose another port"
        if err.errno == errno.EADDRNOTAVAIL:
            return "cannot be used: this host does not have the address"
        return f"cannot be used ({err.strerror})"
    return None


def problems(settings: Settings) -> List[str]:
    found = native_problems() if settings.native else []
    server = settings.tritonserver or (None if settings.native else CONTAINER_TRITONSERVER)
    if server and not os.access(server, os.X_OK):
        found.append(f"The program {server} is missing or cannot be executed.")
    if not settings.remote_repository and not os.path.isdir(settings.model_repository):
        found.append(f"The model repository {settings.model_repository} is not a folder.")
    if settings.admin_key is not None:
        try:
            read_secret(settings.admin_key)
        except StartError as err:
            found.append(str(err))
    return found


def unreadable(settings: Settings) -> List[str]:
    """What the server's user could not read, one sentence each; to be called as that user."""
    paths = {f"grpc_tls.{name}": path for name, path in (settings.grpc_tls or {}).items()}
    if not settings.remote_repository:
        paths["model_repository"] = settings.model_repository
    if settings.tritonserver or not settings.native:
        paths["tritonserver"] = settings.tritonserver or CONTAINER_TRITONSERVER
    return [
        f"{path} ({name}) cannot be read by the server's user (uid {os.geteuid()}){_closed_above(path)}."  # noqa: E501
        for name, path in paths.items()
        if not os.access(path, os.R_OK)
    ]


def _closed_above(path: str) -> str:
    closed = next(
        (above for above in reversed(Path(path).parents) if not os.access(str(above), os.X_OK)),
        None,
    )
    return f", to whom the folder {closed} is closed" if closed else ""


# ---- backend folder ------------------------------------------------------------------------------


def default_backend_sources() -> Path:
    return Path(__file__).resolve().parent / "backends"


def prepare_backends(settings: Settings) -> bool:
    """Fill the backend folder, and keep Python from writing into the repository; returns whether
    anything was written.

    File by file, each replaced atomically and only when it differs: a run that was interrupted is
    completed by the next, and a server that is using the folder never sees it without a file.
    """
    found = find_installation()
    target = Path(settings.backend_directory or "")
    sources = (
        Path(settings.backend_sources) if settings.backend_sources else default_backend_sources()
    )
    wanted: List[Tuple[bytes, Path, int]] = []
    for path in sorted((found.backends / "python").iterdir()):
        if path.is_file():
            wanted.append((path.read_bytes(), target / "python" / path.name, 0o644))
    stub = stub_of_this_python(found)
    wanted.append((stub.read_bytes(), target / "python" / stub.name, 0o755))
    models = sorted(sources.glob("*/model.py"))
    if not models:
        raise StartError(f"{sources} holds no backend (onnxruntime/model.py, fil/model.py).")
    for model in models:
        for path in sorted(model.parent.glob("*.py")):
            wanted.append((path.read_bytes(), target / model.parent.name / path.name, 0o644))
    wanted.append((NO_BYTECODE, found.libraries.parent / NO_BYTECODE_NAME, 0o644))
    changed = False
    for data, destination, mode in wanted:
        changed = _replace_file(data, destination, mode) or changed
    if not os.access(str(found.server), os.X_OK):
        os.chmod(str(found.server), 0o755)
        changed = True
    return changed


def _replace_file(data: bytes, destination: Path, mode: int) -> bool:
    if (
        destination.is_file()
        and destination.stat().st_size == len(data)
        and destination.read_bytes() == data
    ):
        if destination.stat().st_mode & 0o777 == mode:
            return False
        os.chmod(str(destination), mode)
        return True
    # Not made with the umask of whoever calls: the server runs as another user.
    if not destination.parent.is_dir():
        destination.parent.mkdir(parents=True)
        os.chmod(str(destination.parent), 0o755)
    for left in destination.parent.glob(f".{destination.name}.*.new"):
        # A young one may be that of another server which starts from the same environment now.
        if time.time() - left.stat().st_mtime > LEFTOVER_SECONDS:
            left.unlink()
    temporary = destination.parent / f".{destination.name}.{os.getpid()}.new"
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(str(temporary), mode)
    os.replace(str(temporary), str(destination))
    return True


# ---- records -------------------------------------------------------------------------------------


def find_state_dir(settings: Settings) -> Tuple[Optional[Path], List[str]]:
    if settings.remote_repository:
        return None, []
    if settings.state_dir:
        return Path(settings.state_dir), []
    marker = Path(settings.model_repository) / MARKER
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        if not isinstance(content["schema"], int) or content["schema"] > SCHEMA:
            raise ValueError(f"its schema is {content['schema']!r}, this program knows {SCHEMA}")
        place = content["state_dir"]
        if not isinstance(place, str) or not place:
            raise ValueError("state_dir is not a path")
    except FileNotFoundError:
        return None, []
    except (OSError, ValueError, KeyError, TypeError) as err:
        return None, [f"{marker} cannot be used ({_reason(err)}): no model is loaded at the start."]
    return Path(os.path.normpath(os.path.join(settings.model_repository, place))), []


def _reason(err: BaseException) -> str:
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    if isinstance(err, KeyError):
        return f"{err.args[0]} is missing"
    return str(err)


def read_record(text: str) -> Tuple[str, bool]:
    """(model name, is it wanted loaded) of one record; ValueError or KeyError when it cannot be
    used.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    schema = content["schema"]
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ValueError(f"its schema is {schema!r}, this program knows {SCHEMA}")
    name, wanted = content["name"], content["wanted"]
    if (
        not isinstance(name, str)
        or not re.fullmatch(r"[A-Za-z0-9._@-]+", name)
        or name in (".", "..")
    ):
        raise ValueError(f"{name!r} is not a model name")
    if wanted not in ("loaded", "unloaded"):
        raise ValueError(f"wanted is {wanted!r}, neither loaded nor unloaded")
    return name, wanted == "loaded"


def wanted_models(state_dir: Optional[Path], settings: Settings) -> Tuple[List[str], List[str]]:
    """Names to load at the start, and warnings about records and folders that do not fit."""
    if settings.remote_repository:
        return wanted_in_store(settings)
    names, warnings = set(), []
    folder = state_dir / "records" if state_dir else None
    paths: Iterable[Path] = sorted(folder.glob("*.json")) if folder else ()
    for path in paths:
        try:
            name, loaded = read_record(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError) as err:
            warnings.append(
                f"Record {path} is skipped ({_reason(err)}): its model is not loaded at the start."
            )
            continue
        if not loaded:
            continue
        if not settings.remote_repository and not os.path.isdir(
            os.path.join(settings.model_repository, name)
        ):
            warnings.append(
                f"Model {name} is wanted by its record, but its folder is not in the repository."
            )
            continue
        names.add(name)
    return sorted(names), warnings


def settle_journals(state_dir: Optional[Path], repository: str) -> List[str]:
    """Finish or undo what a killed deployment left in <state_dir>/journals; returns one sentence
    per journal.

    A model of which a run holds the lock is left to that run. Whatever goes wrong here is said and
    does not stop the start.
    """
    journals = sorted((state_dir / "journals").glob("*.json")) if state_dir else []
    if not journals:
        return []
    if not core_is_there():
        return [
            (
                f"{len(journals)} interrupted deployments are left as they are: the delivery core is"  # noqa: E501
                " not beside this program"
            )
        ]
    with rights_of(state_dir):
        return _settle(journals, state_dir, repository)


def core_is_there() -> bool:
    """Whether the delivery core can be imported, as ``_delivery``."""
    core = next(
        (
            folder
            for folder in CORE_PLACES
            if (folder / "_delivery/repository/recovery.py").is_file()
        ),
        None,
    )
    if core is not None and str(core) not in sys.path:
        sys.path.insert(0, str(core))
    return core is not None


@contextlib.contextmanager
def rights_of(path: Optional[Path]) -> Iterator[None]:
    """Root acts as the owner of the folder meanwhile, who would else find files of root in it that
    he cannot remove.
    """
    owner = os.stat(path) if path and os.geteuid() == 0 else None
    if owner is None or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def _settle(journals: List[Path], state_dir: Optional[Path], repository: str) -> List[str]:
    from _delivery.errors import DeliveryError
    from _delivery.repository import recovery
    from _delivery.repository.state_store import StateStore

    said = []
    for journal in journals:
        try:
            store = StateStore(repository, str(state_dir))
            with store.lock(journal.stem, 0):
                done = recovery.recover(store, journal.stem, server_starts=True)
            said.append(f"model '{journal.stem}': {done or 'nothing was left to settle'}")
        except (DeliveryError, OSError) as error:
            said.append(
                f"model '{journal.stem}': what an interrupted run left is not settled ({error})"
            )
    return said


# ---- a repository in S3 --------------------------------------------------------------------------


def open_store(settings: Settings) -> Any:
    """The state of a repository in S3. Raises StartError for what cannot be, LaterError for what
    may be another time.
    """
    if not core_is_there():
        raise StartError(
            "A model repository in S3 needs the delivery core (_delivery) beside this program."
        )
    from _delivery.errors import DeliveryError, InvalidOption
    from _delivery.repository.s3.location import parse_s3
    from _delivery.repository.s3.scratch import Scratch
    from _delivery.repository.s3.signed_bucket import find_credentials, open_signed_bucket
    from _delivery.repository.s3.state_store import S3Store

    environment = {**os.environ, **{key: str(value) for key, value in settings.environment.items()}}
    try:
        place = parse_s3(settings.model_repository)
        bucket = open_signed_bucket(
            place,
            find_credentials(place, environment),
            STORE_SECONDS,
            environment.get("AWS_CA_BUNDLE"),
        )
        return S3Store(bucket, settings.state_dir, Scratch(place.url))
    except InvalidOption as err:
        raise StartError(str(err)) from None
    except DeliveryError as err:
        raise LaterError(f"The model repository cannot be read: {err}") from None


def wanted_in_store(settings: Settings) -> Tuple[List[str], List[str]]:
    store = open_store(settings)
    from _delivery.errors import DeliveryError

    names, warnings = [], []
    head = store.state_location.key("records", "")
    try:
        there = set(store.bucket.folders(store.location.key()))
        for key in sorted(store.bucket.objects(head)):
            try:
                name, loaded = read_record((store.bucket.get(key) or b"").decode())
            except (ValueError, KeyError) as err:
                warnings.append(
                    f"Record {key} is skipped ({_reason(err)}): its model is not loaded at the"
                    " start."
                )
                continue
            if loaded and name not in there:
                warnings.append(
                    f"Model {name} is wanted by its record, but it is not in the repository."
                )
            elif loaded:
                names.append(name)
    except DeliveryError as err:
        raise LaterError(f"The records of the models cannot be read: {err}") from None
    return sorted(names), warnings


def settle_store(settings: Settings) -> List[str]:
    """Finish or undo what killed deployments left, and make an empty prefix a folder; returns
    sentences.
    """
    store = open_store(settings)
    from _delivery.errors import DeliveryError
    from _delivery.repository.s3 import changes

    said = []
    try:
        head = store.state_location.key("journals", "")
        journals = [
            key[len(head) : -len(".json")]
            for key in store.bucket.objects(head)
            if key.endswith(".json")
        ]
        empty = store.bucket.get(store.marker) is None and not store.bucket.folders(
            store.location.key()
        )
        if store.location.prefix and empty and not store.bucket.objects(store.location.key()):
            # Triton takes a prefix without any key for no folder, and would start without being
            # alive.
            store.bucket.put(store.location.key(), b"")
    except DeliveryError as err:
        raise LaterError(f"The model repository cannot be made ready: {err}") from None
    for name in sorted(journals):
        try:
            with store.lock(name, 0):
                done = changes.recover(store, name, server_starts=True)
            said.append(f"model '{name}': {done or 'nothing was left to settle'}")
        except (DeliveryError, OSError) as err:
            said.append(f"model '{name}': what an interrupted run left is not settled ({err})")
    return said


# ---- command -------------------------------------------------------------------------------------


def server_environment(settings: Settings) -> Dict[str, str]:
    environment = dict(os.environ)
    if settings.native:
        found = find_installation()
        for name in ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"):
            environment.pop(name, None)
        # The stub embeds Python and finds its environment through the first python3 on PATH.
        environment["PATH"] = os.pathsep.join(
            [str(Path(sys.prefix) / "bin"), environment.get("PATH") or os.defpath]
        )
        # libpython's folder comes last: it may hold system libraries that must not hide the wheel's
        # own.
        folder = libpython_folder()
        environment["LD_LIBRARY_PATH"] = ":".join(
            [str(found.libraries)] + ([str(folder)] if folder else [])
        )
    environment.update({key: str(value) for key, value in settings.environment.items()})
    return environment


def make_command(settings: Settings) -> Command:
    state_dir, warnings = find_state_dir(settings)
    names, more = wanted_models(state_dir, settings)
    found = find_installation() if settings.native else None
    server = settings.tritonserver or (str(found.server) if found else CONTAINER_TRITONSERVER)
    argv = [
        server,
        f"--model-repository={settings.model_repository}",
        "--model-control-mode=explicit",
        "--strict-readiness=false",
        "--exit-on-error=false",
    ]
    if found:
        argv.append(f"--backend-directory={settings.backend_directory}")
        argv.append(f"--cache-directory={settings.cache_directory or found.caches}")
    elif settings.cache_directory:
        argv.append(f"--cache-directory={settings.cache_directory}")
    for service in settings.services():
        if service.port is None:
            argv.append(f"--allow-{service.name}=false")
        else:
            argv += [
                f"--{service.name}-address={service.address}",
                f"--{service.name}-port={service.port}",
            ]
    argv += protocol_arguments(settings)
    if settings.exit_timeout is not None:
        argv.append(f"--exit-timeout-secs={int(settings.exit_timeout)}")
    if settings.shm_region_prefix:
        argv.append(f"--backend-config=python,shm-region-prefix-name={settings.shm_region_prefix}")
    if settings.admin_key is not None:
        key = f"{settings.admin_key['name']}={read_secret(settings.admin_key)}"
        argv.append(f"--http-restricted-api={RESTRICTED}:{key}")
        argv.append(f"--grpc-restricted-protocol={RESTRICTED}:{key}")
    argv += [f"--load-model={name}" for name in names]
    argv += [str(item) for item in settings.extra_args]
    return Command(argv, server_environment(settings), warnings + more)


def protocol_arguments(settings: Settings) -> List[str]:
    web, grpc, _metrics = settings.services()
    argv = []
    if web.port and settings.http_threads:
        argv.append(f"--http-thread-count={settings.http_threads}")
    if grpc.port and settings.grpc_tls:
        tls = settings.grpc_tls
        argv += [
            "--grpc-use-ssl=true",
            f"--grpc-server-cert={tls['certificate']}",
            f"--grpc-server-key={tls['key']}",
        ]
        if tls.get("client_ca"):
            argv += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={tls['client_ca']}"]
    return argv


def printable(argv: List[str]) -> str:
    """The command as a shell would take it, secrets masked."""
    import shlex

    words = []
    for word in argv:
        if word.startswith(("--http-restricted-api=", "--grpc-restricted-protocol=")):
            word = word.rpartition("=")[0] + "=" + MASK
        words.append(shlex.quote(word))
    return " ".join(words)


# ---- health --------------------------------------------------------------------------------------


def health_problems(settings: Settings) -> List[str]:
    """Why the running server is not healthy, one sentence each."""
    web, grpc, _metrics = settings.services()
    service = web if web.port else grpc
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(service.address, service.address)
    try:
        if not web.port:
            socket.create_connection((host, int(service.port or 0)), HEALTH_SECONDS).close()
            return []
        if _status(host, int(web.port), "/v2/health/live") != 200:
            return ["The server is not alive."]
        names = wanted_models(find_state_dir(settings)[0], settings)[0]
        return [
            f"Model {name} is not ready."
            for name in names
            if _status(host, int(web.port), f"/v2/models/{name}/ready") != 200
        ]
    except OSError as err:
        return [f"The server does not answer on {host}:{service.port} ({err})."]


def _status(host: str, port: int, path: str) -> int:
    connection = http.client.HTTPConnection(host, port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except http.client.HTTPException as err:
        raise OSError(str(err)) from None
    finally:
        connection.close()


# ---- start ---------------------------------------------------------------------------------------


def become(run_as: Optional[List[int]]) -> None:
    """Take on the server's user and group, which cannot be undone. Raises StartError where root's
    rights would be needed for it.
    """
    if run_as is None or [os.geteuid(), os.getegid()] == run_as:
        return
    user, group = run_as
    try:
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    except OSError as err:
        raise StartError(
            f"The server cannot run as user {user}, group {group} ({err.strerror}): start this"
            " program as root."
        ) from None


def exec_server(command: Command, log_file: Optional[str]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if log_file:
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        os.dup2(log, 1)
        os.dup2(log, 2)
    os.execve(command.argv[0], command.argv, command.environment)


def say(text: str) -> None:
    print(f"start_triton: {text}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments.config)
    if arguments.health:
        sick = health_problems(settings)
        print(" ".join(sick) or "healthy")
        return 1 if sick else 0
    starts = not (arguments.prepare or arguments.print or arguments.settle)
    found = problems(settings) if starts else []
    # The check of a container is made beside the one that still serves on these ports.
    if starts and (settings.native or not arguments.check):
        found += port_problems(settings)
    if arguments.check:
        become(settings.run_as)
        found += unreadable(settings)
    for sentence in found:
        say(sentence)
    if found:
        return EXIT_CONFIG
    if arguments.check:
        return 0
    if arguments.prepare:
        if settings.native:
            print("changed" if prepare_backends(settings) else "unchanged")
        return 0
    if arguments.print:
        print(printable(make_command(settings).argv))
        return 0
    if settings.remote_repository:
        settled = settle_store(settings)
    else:
        settled = settle_journals(find_state_dir(settings)[0], settings.model_repository)
    for sentence in settled:
        say(sentence)
    if arguments.settle:
        return 0
    if settings.native:
        prepare_backends(settings)
    command = make_command(settings)
    for sentence in command.warnings:
        say(sentence)
    become(settings.run_as)
    for sentence in unreadable(settings):
        say(sentence)
    exec_server(command, settings.log_file)
    return 0


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        description="Start Triton with the models that the deployment records want."
    )
    parser.add_argument("--config", required=True, help="JSON file of settings")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--check", action="store_true", help="only check that the server could start"
    )
    group.add_argument("--prepare", action="store_true", help="only fill the backend folder")
    group.add_argument(
        "--health",
        action="store_true",
        help="only ask the running server how it is; exit code 1 when it is not well",
    )
    group.add_argument(
        "--settle", action="store_true", help="only finish or undo interrupted deployments"
    )
    group.add_argument(
        "--print", action="store_true", help="only print the command, secrets masked"
    )
    try:
        return run(parser.parse_args(argv))
    except LaterError as err:
        say(str(err))
        return EXIT_LATER
    except StartError as err:
        say(str(err))
        return EXIT_CONFIG
    except OSError as err:
        say(f"{err.filename or 'start'}: {err.strerror}.")
        return EXIT_CONFIG


if __name__ == "__main__":
    sys.exit(main())
