# SPDX-License-Identifier: Apache-2.0
"""Signatures of models, as OpenSSF model signing makes them.

- ``anchors``: keys and certificates that the options name.
- ``bundle``: what a signature's file says, before it is known whether that is true.
- ``signatures``: verifies one, and says who signed which files.
- ``signing``: makes one.
- ``memory``: hands bytes to a library that wants a path, without a file.
"""
