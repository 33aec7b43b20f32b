# SPDX-License-Identifier: Apache-2.0
"""The front doors. Modules and plugins call these.

- ``target``: registry, repository and servers of a run, as one value.
- ``inspection``: what is deployed; imports nothing that plans or changes.
- ``delivery``: brings a list of models to their desired state.
- ``plan_builder``: reads and plans one model.
- ``report``: what a user is told of a model.
- ``registry_status``: tells the registry what a target has deployed.
"""
