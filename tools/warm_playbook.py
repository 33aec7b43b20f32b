# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a run of ansible-playbook does first that was forked by warm_python.py: it takes a temporary
folder of its own, as each run has one, in which the zips of modules are those of all runs. The
folder of the server stays.
"""

import atexit
import os
import tempfile

from ansible import constants
from ansible.utils.path import cleanup_tmp_file

shared = constants.DEFAULT_LOCAL_TMP
zips = os.path.join(shared, "ansiballz_cache")
os.makedirs(zips, exist_ok=True)
atexit.unregister(cleanup_tmp_file)
own = tempfile.mkdtemp(prefix=f"ansible-local-{os.getpid()}", dir=os.path.dirname(shared))
atexit.register(cleanup_tmp_file, own, warn=True)
os.symlink(zips, os.path.join(own, "ansiballz_cache"))
constants.DEFAULT_LOCAL_TMP = own
