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
      container:
        description:
          - For servers in a container of Docker. Environments are then made with the Python of its
            image, in short-lived containers of it that have O(environments.folder) at the same
            path. The module needs the command C(docker), and a user who may use it.
          - The name of the server's container, or the image that it has.
          - When omitted, environments are made with Pythons of this host, for servers that run on
            it.
        type: str
      container_engine:
        description:
          - Address of the Docker Engine on this host, as C(docker --host) takes it.
          - When omitted, the one that C(docker) uses.
        type: str
      locks:
        description:
          - What another host has resolved, so that this one installs the same - the C(lock) of each
            C(key) that M(mlops.triton.triton_models) returned there with C(only_environments).
            Requirements without a key here are resolved, or installed as they were before.
        type: dict
"""
