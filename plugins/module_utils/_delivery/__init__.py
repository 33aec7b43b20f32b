# SPDX-License-Identifier: Apache-2.0
"""The delivery core: from a model registry into a Triton model repository.

Private to this collection. Imports nothing from Ansible, and imports third-party libraries only
inside the functions which need them. docs/architecture.md has the picture of the packages.

What every package may use lies here:

- ``errors``: what a user can see go wrong, one class for each kind.
- ``effects``: a name for every mutating call, for the tests that count and kill at each of them.
- ``outside``: names for values from outside that have no types: JSON, options, MLflow.
- ``exhaustive``: a ``match`` that mypy holds to name every member of a union.
- ``deadline``: total deadlines around calls that know only per-read time-outs.
- ``libraries``: third-party imports, with a sentence where one is missing.
- ``names``: model names that Triton's URLs can carry.
- ``loopback``: this host is reached without a proxy.
- ``terminal``: text of anybody, fit for a terminal and a log.
- ``redact``: text without credentials, for messages.
- ``process``: who changes something, and whether it still lives.
- ``progress``: what a run is doing just now, for whoever listens.
- ``rights``: as whom this process acts on files.
- ``no_follow``: files opened without following any symbolic link, or none that is not root's.
- ``disk``: exchange, fsync, permissions, fingerprints and hashes of files of this host.
"""
