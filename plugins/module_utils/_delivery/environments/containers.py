# SPDX-License-Identifier: Apache-2.0
"""Programs that run as they would beside a server in a container: in a short-lived container of its
image, with the folder of environments at the same path.

An environment is links to the Python that made it, so the image's own Python has to make it. Such a
container has this host's network where it fetches packages and none otherwise, no capabilities, and
nothing that it can write to but the folder of environments and its /tmp.
"""

from __future__ import annotations

import csv
import glob
import io
import os
import resource
import secrets
import shutil
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..domain.fields import Fields, WrongShape, read_json
from ..effects import effect
from ..errors import DeliveryError, MissingLibrary, NotFound
from ..terminal import one_line
from .bounded import STEP, Bounds, Ended, User, run
from .options import EnvironmentOptions
from .pythons import Python, Pythons, ask

LABEL = "mlops.triton.environments"
_OF_IMAGE = "-image"
_UV = "/run/mlops-triton/uv"
"""Where uv is in a container: where it lies on the host is often closed to all but root."""
_SECONDS = 60
_MOST_VALUES = 5000
_LONGEST = 300
_REFUSED = 125
"""With which docker ends where the engine made no container; other codes are the program's."""
_SIGNALS, _LAST_SIGNAL = 128, 64
_CONTAINER = '{"image":{{json .Image}},"named":{{json .Config.Image}},"mounts":{{json .Mounts}}}'
_IMAGE = '{"image":{{json .Id}}}'
# The engine's names of bounds; that of memory has an option of its own.
_LIMITS = {
    resource.RLIMIT_CPU: "cpu",
    resource.RLIMIT_DATA: "data",
    resource.RLIMIT_FSIZE: "fsize",
    resource.RLIMIT_NOFILE: "nofile",
    resource.RLIMIT_NPROC: "nproc",
    resource.RLIMIT_CORE: "core",
}
_FILES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT")
_OF_THE_HOST = ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS")


@dataclass(frozen=True)
class Image:
    """What is started: its id, what users call it, and the container that was asked for it."""

    id: str
    name: str
    container: str | None


class Container:
    """Runs programs in the image of a server. ``run`` is called as ``bounded.run`` is.

    Args:
        name: a container, running or not, whose image it is; or an image that this host has.
        engine: address of the Docker Engine, as its command ``docker --host`` takes it.
        folder: that of environments, which containers have at the same path.
        readable: further files and folders of this host that programs read.
    """

    def __init__(
        self, name: str, engine: str | None, folder: str, readable: Iterable[str] = ()
    ) -> None:
        self._name = name
        self._engine = engine
        self._folder = folder
        self._readable = tuple(readable)
        self._image: Image | None = None

    @property
    def image(self) -> Image:
        """The image that a server of this container has.

        Raises:
            NotFound: this host has no such container or image.
            DeliveryError: the engine does not answer; or the container does not have the folder.
        """
        if self._image is None:
            self._image = self._of_container() or self._of_image()
        return self._image

    def _of_container(self) -> Image | None:
        said = self._ask("container", _CONTAINER)
        if said is None:
            return None
        try:
            places = [
                (row.text("Source"), row.text("Destination")) for row in said.objects("mounts")
            ]
            found = Image(said.text("image"), said.text("named"), self._name)
        except WrongShape as error:
            raise self._strange() from error
        if not any(_holds(self._folder, *place) for place in places):
            raise DeliveryError(
                f"the container {self._name} does not have the folder of environments"
                f" {self._folder} at this path, so that its models would find no Python: run"
                " mlops.triton.provision, or mount it there read-only",
                step=STEP,
            )
        return found

    def _of_image(self) -> Image:
        said = self._ask("image", _IMAGE)
        if said is None:
            raise NotFound(
                f"this host has neither a container nor an image of the name {self._name}, in which"
                " environments are made (container of the option environments): run"
                " mlops.triton.provision, or name the container or the image in which the server"
                " runs",
                step=STEP,
            )
        try:
            return Image(said.text("image"), self._name, None)
        except WrongShape as error:
            raise self._strange() from error

    def _strange(self) -> DeliveryError:
        return DeliveryError(
            f"the Docker Engine does not say which image {self._name} is", step=STEP
        )

    def _ask(self, kind: str, wanted: str) -> Fields | None:
        ended = self._docker([kind, "inspect", "--format", wanted, "--", self._name])
        if ended.code == 0:
            try:
                return Fields(read_json(ended.output, _MOST_VALUES))
            except WrongShape as error:
                raise self._strange() from error
        if f"no such {kind}" in ended.errors.lower():
            return None
        raise DeliveryError(self._no_answer(ended), step=STEP)

    def _no_answer(self, ended: Ended) -> str:
        why = f"it gave none within {_SECONDS} s" if ended.late else one_line(ended.errors.strip())
        return (
            "the Docker Engine, in whose containers environments are made, does not answer"
            f" ({why[:_LONGEST]}): start it, name its address in container_engine of the option"
            " environments, and deliver as a user who may use it"
        )

    def _docker(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        seconds: float = _SECONDS,
    ) -> Ended:
        program = shutil.which("docker")
        if program is None:
            raise MissingLibrary(
                "the command docker is needed to make environments for a server in a container:"
                " install it on this host (Debian: docker-cli, or docker.io of older releases)",
                step=STEP,
                library="docker",
            )
        words = [program, *(["--host", self._engine] if self._engine else []), *arguments]
        # A folder of settings that nobody else can have written: they name programs to run.
        own = {"DOCKER_CONFIG": "/var/empty/mlops-triton", "PATH": os.environ.get("PATH", "")}
        return run(words, {**(environment or {}), **own}, Bounds(seconds))

    # -- programs ----------------------------------------------------------------------------------

    def run(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        bounds: Bounds,
        user: User | None = None,
        *,
        folder: str = "/",
        by_descriptor: bool = False,
    ) -> Ended:
        """Run a program in a container of its own to the end.

        Args:
            words: the program, which the image or the folder of environments has, and its
                arguments, which any user of the host may see.
            environment: what it gets beside what the image says; PATH stays the image's.
            user: as whom; None: the user of this process.
            by_descriptor: the program is this host's, and fetches what it needs over its network.

        Raises:
            DeliveryError: the engine does not answer.
        """
        told = self._environment(environment)
        name = f"mlops-triton-environment-{secrets.token_hex(8)}"
        arguments = [
            *("run", "--name", name, "--rm", "--init", "--pull", "never", "--read-only"),
            *("--tmpfs", "/tmp:rw,nosuid,nodev,mode=1777", "--label", f"{LABEL}={self._folder}"),
            *("--network", "host" if by_descriptor else "none"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--security-opt", "label=disable", "--oom-score-adj", "1000"),
            *("--user", _number(user), "--workdir", folder),
            *_limits(bounds),
            *self._mounts(told, words[0] if by_descriptor else None),
            *(word for key in told for word in ("--env", key)),
            *("--entrypoint", _UV if by_descriptor else words[0]),
            self.image.id,
            *words[1:],
        ]
        with effect("container", name):
            ended = self._docker(arguments, told, bounds.seconds)
        if ended.late or ended.code < 0:
            self._docker(["rm", "--force", name])
        if ended.code == _REFUSED:
            raise DeliveryError(self._no_answer(ended), step=STEP)
        signal = ended.code - _SIGNALS
        return replace(ended, code=-signal) if 0 < signal <= _LAST_SIGNAL else ended

    @staticmethod
    def _environment(environment: Mapping[str, str]) -> dict[str, str]:
        """With the names of the container's variables docker takes their values from its own
        environment, which only its user may read.
        """
        told = {key: value for key, value in environment.items() if key != "PATH"}
        if any(told.pop(name, "") for name in _OF_THE_HOST) and "SSL_CERT_FILE" not in told:
            bundle = ssl.get_default_verify_paths().cafile
            if bundle:
                told["SSL_CERT_FILE"] = os.path.realpath(bundle)
        return told

    def _mounts(self, environment: Mapping[str, str], program: str | None) -> list[str]:
        read = [*self._readable, *(environment[name] for name in _FILES if name in environment)]
        mounts = []
        if os.path.isdir(self._folder):  # a run that only looks makes none
            mounts.append((self._folder, self._folder, False))
        for path in dict.fromkeys(map(os.path.normpath, read)):
            if os.path.exists(path) and not _is_below(path, self._folder):
                mounts.append((path, path, True))
        if program is not None:
            mounts.append((program, _UV, True))
        return [word for mount in mounts for word in ("--mount", _mount(*mount))]

    def remove_leftovers(self) -> None:
        """End what a killed run has left in this folder. The caller holds the folder's lock."""
        ended = self._docker(
            ["ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}={self._folder}"]
        )
        if ended.code:
            raise DeliveryError(self._no_answer(ended), step=STEP)
        for found in ended.output.decode("ascii", "replace").split():
            with effect("container", found):
                self._docker(["rm", "--force", found])


class PythonsOfImage(Pythons):
    """The interpreters that a server in a container has: of its image, and of the folder of
    environments.
    """

    def __init__(
        self, options: EnvironmentOptions, managed: str, user: User | None, container: Container
    ) -> None:
        super().__init__(options, managed, user)
        self._container = container

    def find(self, minor: str | None) -> Python | None:
        """Without a version that the model asks for, the image's own."""
        if minor is None and not self._options.pythons:
            found = self._ask("python3")
            return found if isinstance(found, Python) else None
        return super().find(minor)

    def ask(self, path: str) -> Python | str:
        """Raises DeliveryError where the engine does not answer."""
        self._container.image  # noqa: B018
        found = ask(path, self._user, self._container.run)
        if isinstance(found, str):
            return found
        # With the same Python of the host other libraries are below it.
        return replace(found, platform=f"{found.platform}{_OF_IMAGE}")

    def _candidates(self, minor: str) -> Iterator[str]:
        below = os.path.join(glob.escape(self._managed), f"*-{minor}.*")
        for folder in sorted(glob.glob(below), reverse=True):
            yield os.path.join(folder, "bin", f"python{minor}")
        yield from ("python3", f"python{minor}")

    def refuse(self, minor: str | None) -> DeliveryError:
        own = self._asked.get("python3")
        has = f"has Python {own.minor}" if isinstance(own, Python) else f"has no Python ({own})"
        if minor is None:
            return DeliveryError(
                f"{self._container.image.name}, in which the server runs, {has}: name one that the"
                " server's container has too in pythons of the option environments",
                step=STEP,
            )
        return DeliveryError(
            f"the model needs Python {minor}, and {self._container.image.name}, in which the server"
            f" runs, {has}: put a Python {minor} for all users below"
            f" {os.path.dirname(self._managed)}, which the container has, and name it in pythons of"
            " the option environments, or set python_mirror there, or log the model again with a"
            " Python that the image has",
            step=STEP,
        )


def _holds(folder: str, source: str, destination: str) -> bool:
    """Whether a mount shows the folder at its own path."""
    return source == destination and _is_below(folder, source)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _number(user: User | None) -> str:
    return f"{user.user}:{user.group}" if user else f"{os.geteuid()}:{os.getegid()}"


def _mount(source: str, target: str, read_only: bool) -> str:
    """As docker reads it: fields with commas in them are quoted."""
    fields = ["type=bind", f"source={source}", f"target={target}"]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*fields, *(["readonly"] if read_only else [])])
    return line.getvalue()


def _limits(bounds: Bounds) -> list[str]:
    found = []
    for what, most in bounds.limits:
        if what in _LIMITS:
            found += ["--ulimit", f"{_LIMITS[what]}={most}:{most}"]
        elif what == resource.RLIMIT_AS:
            found += ["--memory", str(most)]
    return found
