# SPDX-License-Identifier: Apache-2.0
"""Environments of Python models: from what a model needs to a folder whose Python can load it.

- ``environments``: the only part that others use: looks, builds, lists and removes.
- ``options``: where environments lie, and where Pythons and packages come from.
- ``pythons``: which Python of this host an environment is made with.
- ``containers``: the same where a server runs in a container: its image's Python makes them.
- ``resolving``: requirements become a lock: exact versions with hashes, kept for the next time.
- ``building``: a lock becomes a folder, in a temporary name, proven and then renamed.
- ``sealing``: what an unprivileged user has built becomes root's.
- ``proof``: the packages are imported, by the environment's own Python.
- ``stamp``: what is written down beside the packages, and the bill of materials.
- ``place``: the folder, who builds in it, and one at a time.
- ``uv_program``: uv, found and run with the settings of the place.
- ``uv_words``: what uv says when it fails, in a sentence.
- ``bounded``: a program of its own with bounds, as another user where this one is root.
"""
