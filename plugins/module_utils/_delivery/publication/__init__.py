# SPDX-License-Identifier: Apache-2.0
"""From a local model to a registered version: the only package that changes a registry's versions.

- ``publication``: observe, plan and apply of one.
- ``batch``: many of them in one process.
- ``local_model``: what is uploaded for a folder or a single file.
- ``comparison``: what will be served of trees, compared with the library that trained them.
- ``upload_location``: where the files of a new version go: a logged model, or a run.
- ``upload``: files of this host into an artifact location.
"""
