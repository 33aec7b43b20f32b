# SPDX-License-Identifier: Apache-2.0
"""Frozen values of the domain. No I/O.

- ``uri``: what ``model_uri`` can say.
- ``source``: what a model URI means now: exact version, artifact root.
- ``manifest``: the files of a model with size and sha256, their digest, differences, confinement.
- ``layout``: what lies in an artifact, and the model folder to be made of it.
- ``config_pbtxt``: config.pbtxt through Triton's protobuf: parse, overlay, deploy id, render.
- ``backends``: which backend Triton runs a model with, and what code a model brings.
- ``record``: what is written down of a deployment.
- ``journal``: what is written down of a change before it begins.
- ``marker``: what says where the state of a repository lies.
- ``fields``: reads the JSON of these, and says what about it is wrong.
- ``desired``: what a user asks for of one model.
- ``stored``: what the repository holds of one model.
- ``observed``: what is there of one model: record, files, servers.
- ``served``: what one server says of one model.
"""
