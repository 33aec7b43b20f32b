# SPDX-License-Identifier: Apache-2.0
"""The start wrapper of Triton: one package, run as a folder or, on hosts, as one zip.

- ``__main__``: which Python it needs, and where its packages lie.
- ``cli``: the options, and the order of a start.
- ``failures``: why a server cannot be started, and how that is said.
- ``settings``: the JSON file.
- ``installation``: the server from PyPI, and what a host lacks for it.
- ``checks``: ports, folders and files, before a start.
- ``backends``: the folder of backends of the server from PyPI.
- ``wanted``: which models the deployment records want at a start.
- ``folder``: state, records and recovery of a repository in a folder.
- ``store``: state, records and recovery of a repository in S3.
- ``repository``: either of the two.
- ``leftovers``: processes of models whose server is gone.
- ``command``: the command line and the environment of tritonserver.
- ``privileges``: the rights that this program and the server have.
- ``health``: the health check of a container.

What a host can do is asked with ``host.py``, which roles also send to hosts; what lies in a
repository is read and recovered with the packages ``domain`` and ``repository`` of the delivery
core.
"""
