# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines on what a module is doing, while Ansible waits for it.

The module runs as any other does. Only where it takes seconds, a thread asks beside it, on a
connection of the same kind, for the file in which the module writes down its standing. Whatever
goes wrong with that ends the lines, and nothing else.
"""

from __future__ import annotations

import contextvars
import copy
import json
import os
import secrets
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.utils.display import Display

from ..module_utils._delivery.progress import SWITCH, VARIABLE, Lines
from ..module_utils._delivery.terminal import one_line
from .module_python import ModulePythonAction

if TYPE_CHECKING:
    from ansible.playbook.task import Task

_FIRST = 2.0
_EVERY = 2.0
_MOST = 1 << 16
display = Display()


class ProgressAction(ModulePythonAction):
    """Runs the module of its own name, as Ansible would without this plugin, and shows what it
    tells of itself.
    """

    def _execute_module(
        self, *args: Any, task_vars: dict[str, Any] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if not self._is_shown():
            return super()._execute_module(*args, task_vars=task_vars, **kwargs)
        path = f"{self._remote_folder()}/mlops-triton-progress-{secrets.token_hex(12)}"
        environment = self._task.environment
        self._task.environment = [*(environment or []), {VARIABLE: path}]
        watch = _Watch(self, path, _label(self._task, task_vars or {}))
        watch.start()
        result: dict[str, Any] = {}
        try:
            result = super()._execute_module(*args, task_vars=task_vars, **kwargs)
        finally:
            self._task.environment = environment
            watch.end(clean="module_stdout" not in result and bool(result))
        return result

    def _is_shown(self) -> bool:
        if self._task.check_mode or self._task.async_val or self._task.no_log:
            return False
        return boolean(self._task.args.get("progress", os.environ.get(SWITCH, True)), strict=False)

    def _remote_folder(self) -> str:
        return (self.get_shell_option("system_tmpdirs") or ["/tmp"])[-1]


def _label(task: Task, task_vars: dict[str, Any]) -> str:
    name = task_vars.get("inventory_hostname", "")
    return f"{name} -> {task.delegate_to}" if task.delegate_to else name


def _own(path: str) -> str:
    """A command that shows the file where this user has made it: whoever sees the name in the list
    of processes could put a pipe there, or a link.
    """
    return f"[ -f {path} ] && [ ! -L {path} ] && [ -O {path} ] && head -c {_MOST} {path}"


class _Watch:
    """Reads the file every now and then. It has an action and a connection of its own: those of the
    module are busy.
    """

    def __init__(self, action: ModulePythonAction, path: str, label: str) -> None:
        self._action = copy.copy(action)
        self._action._connection = copy.copy(action._connection)
        # Its prompt and its sign of success are new for each command.
        self._action._connection.become = copy.copy(action._connection.become)
        self._path, self._label = path, label
        self._lines = Lines()
        self._over = threading.Event()
        self._seen = False
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), daemon=True, name="progress"
        )

    def start(self) -> None:
        self._thread.start()

    def end(self, clean: bool) -> None:
        self._over.set()
        self._thread.join(5)
        if self._seen and not clean:
            with suppress(AnsibleError, OSError):
                self._ask(f"rm -f {self._path} {self._path}.*")

    def _run(self) -> None:
        wait = _FIRST
        try:
            while not self._over.wait(wait):
                began = time.monotonic()
                self._show(self._ask(_own(self._path)))
                wait = max(_EVERY, 5 * (time.monotonic() - began))
        except Exception as error:  # lines are a courtesy: nothing may fail for want of them
            display.vvv(f"no more progress lines: {one_line(error)}", host=self._label)

    def _ask(self, command: str) -> str:
        return self._action._low_level_execute_command(command)["stdout"]

    def _show(self, text: str) -> None:
        if not text.strip() or self._over.is_set():
            return
        self._seen = True
        with suppress(ValueError, KeyError, TypeError):
            for line in self._lines.of(json.loads(text)):
                display.display(f"progress: [{self._label}] {line}")
