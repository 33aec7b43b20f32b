# SPDX-License-Identifier: Apache-2.0
"""Bytes in: what an artifact holds, and the way of its files onto this disk.

- ``roots``: the interface, and folders of this host.
- ``places``: which folders of this host, and which kinds of stores, a registry may name.
- ``union``: two of them as one, as ``runs:/`` means since MLflow 3.
- ``mlflow_proxy``: artifacts behind an MLflow server.
- ``mlflow_downloader``: artifacts that only MLflow's own code can reach.
- ``metadata``: the files that tell what an artifact is.
- ``checked``: an artifact whose files are compared with what is claimed of them.
- ``signed``: an artifact's signature, and which files it covers.
- ``folder_identity``: an identity for a folder of this host, which has no version number.
- ``availability``: which stores did not answer in this run.
- ``transfer``: many transfers at once, with a limit for the process.
- ``download``: one remote file: ranges side by side, taken up again, hashed on the way.
- ``local_copy``: one file of this host: a reflink or a copy in the kernel, hashed in the same pass.
"""
