# SPDX-License-Identifier: Apache-2.0
"""The options, and the order of a start.

Exit code 75: the object store of the repository does not answer or refuses; another start may
succeed. Exit code 78: the configuration or the host does not allow a start; stderr says why in one
sentence each.
"""

from __future__ import annotations

import argparse
import os
import sys

from _delivery.no_follow import append_to

from .failures import EXIT_CONFIG, EXIT_LATER, LaterError, StartError, say
from .settings import Settings, read_settings


def exec_server(argv: list[str], environment: dict[str, str], log_file: str | None) -> None:
    """Become the server; does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    if log_file:
        log = append_to(log_file)
        os.dup2(log, 1)
        os.dup2(log, 2)
    os.execve(argv[0], argv, environment)


def report_health(settings: Settings) -> int:
    from .health import health_problems

    sick = health_problems(settings)
    print(" ".join(sick) or "healthy")
    return 1 if sick else 0


def start(settings: Settings) -> int:
    """Recover, prepare, take on the server's rights, end what a former server left and become the
    server.
    """
    from .backends import prepare_backends
    from .checks import unreadable
    from .command import make_command
    from .leftovers import end_leftovers
    from .privileges import become
    from .repository import recover

    for sentence in recover(settings):
        say(sentence)
    if settings.native:
        prepare_backends(settings)
    command = make_command(settings)
    for sentence in command.warnings:
        say(sentence)
    become(settings.run_as)
    for sentence in unreadable(settings) + end_leftovers(settings):
        say(sentence)
    exec_server(command.argv, command.environment, settings.log_file)
    return 0


def check(settings: Settings, only: bool) -> int:
    """Say what keeps the server from starting. ``only``: no start follows, and this process takes
    on the server's user to see what that can read.
    """
    from .checks import port_problems, problems, unreadable
    from .privileges import become

    found = problems(settings)
    # The check of a container is made beside the one that still serves on these ports.
    if settings.native or not only:
        found += port_problems(settings)
    if only:
        become(settings.run_as)
        found += unreadable(settings)
    for sentence in found:
        say(sentence)
    return EXIT_CONFIG if found else 0


def run(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments.config)
    if arguments.health:
        return report_health(settings)
    if arguments.check:
        return check(settings, only=True)
    if arguments.prepare:
        from .backends import prepare_backends

        if settings.native:
            print("changed" if prepare_backends(settings) else "unchanged")
        return 0
    if arguments.print:
        from .command import make_command, printable

        print(printable(make_command(settings).argv))
        return 0
    if arguments.recover:
        from .repository import recover

        for sentence in recover(settings):
            say(sentence)
        return 0
    return check(settings, only=False) or start(settings)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="start_triton",
        description="Start Triton with the models that the deployment records want.",
    )
    parser.add_argument("--config", required=True, help="JSON file of settings")
    group = parser.add_mutually_exclusive_group()
    for option, text in (
        ("--check", "only check that the server could start"),
        ("--prepare", "only fill the backend folder"),
        (
            "--health",
            "only ask the running server how it is; exit code 1 when it is not well",
        ),
        ("--recover", "only finish or undo interrupted deployments"),
        ("--print", "only print the command, secrets masked"),
    ):
        group.add_argument(option, action="store_true", help=text)
    return parser


def main(argv: list[str] | None = None) -> int:
    try:
        return run(make_parser().parse_args(argv))
    except LaterError as err:
        say(str(err))
        return EXIT_LATER
    except StartError as err:
        say(str(err))
        return EXIT_CONFIG
    except OSError as err:
        say(f"{err.filename or 'start'}: {err.strerror}.")
        return EXIT_CONFIG
