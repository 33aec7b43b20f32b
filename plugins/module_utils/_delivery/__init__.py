# SPDX-License-Identifier: Apache-2.0
"""The delivery core: from a model registry into a Triton model repository.

Private to this collection. Imports nothing from Ansible; docs/architecture.md says which file owns
what.
"""
