# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment that is killed once its new files are in their place and before the server has
loaded them.

    python die.py FOLDER_OF_THE_CORE '{"place": {…}, "model": {…}}'
"""

import json
import os
import signal
import sys

sys.path.insert(0, sys.argv[1])

from _delivery.domain.desired import DesiredModel
from _delivery.effects import observe
from _delivery.orchestration.delivery import Delivery
from _delivery.orchestration.target import Target


def die(moment: str, kind: str, subject: str) -> None:
    if (moment, kind) == ("before", "load"):
        os.kill(os.getpid(), signal.SIGKILL)


request = json.loads(sys.argv[2])
with observe(die), Delivery(Target.from_options(request["place"])) as delivery:
    delivery.deliver([DesiredModel.from_options(request["model"])])
