# SPDX-License-Identifier: Apache-2.0
"""Triton servers.

- ``server``: one server: index, served configuration, load, unload.
- ``tensors``: what users hold becomes tensors.
- ``columns``: which column of a table is which of the model.
- ``pyfunc_requests``: what users hold becomes a request to a model that MLflow's pyfunc runs.
- ``pyfunc_values``: the values of a column or a tensor of MLflow's signatures.
- ``inference``: how a model is asked: once, in a sequence, or for a stream of answers.
- ``address``: where it listens, and what it wants to see before it answers.
- ``same_server``: whether two addresses are one server.
- ``transport``: how a call can fail, for both ways to a server.
- ``answers``: what it says, checked for its shape.
- ``bounded``: how much it may say over HTTP.
- ``log``: the end of a log on this host that it names.
- ``metrics``: the memory of its GPUs, and where requests were answered.
- ``readiness``: whether it is strict about it.
- ``watch``: whether a server goes down while a call over HTTP waits for its answer.
- ``http_transport``, ``grpc_transport``: the two ways.
"""
