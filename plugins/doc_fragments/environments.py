# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  environments:
    description:
      - How the Python environments of models that MLflow's C(pyfunc) answers for are made. Each is
        restored from what the model was logged with, and shared by all models that need the same.
        The collection's C(docs/environments.md) has more.
      - No record keeps it.
    type: dict
    suboptions:
      folder:
        description:
          - Where environments lie. The servers need it under the same path.
          - When omitted, C(environments) in O(state_dir).
        type: path
      pythons:
        description:
          - Python interpreters of this host to make environments with, as absolute paths. The one
            with the minor version that a model was logged with is taken.
          - When omitted, those that are found.
        type: list
        elements: path
      python_mirror:
        description:
          - Where C(uv) may fetch a Python version that this host does not have, as a mirror of its
            releases (C(UV_PYTHON_INSTALL_MIRROR)). When omitted, no Python is fetched.
        type: str
      index_url:
        description: The package index to install from. When omitted, the public one.
        type: str
      extra_index_urls:
        description: Further package indexes, which are asked first.
        type: list
        elements: str
      find_links:
        description: Folders of this host, or pages, in which wheels lie.
        type: list
        elements: str
      no_index:
        description: Ask no index, and install only what O(environments.find_links) has.
        type: bool
      source_distributions:
        description:
          - Allow packages that have no wheel. To build one runs its code while the environment is
            made.
        type: bool
"""
