# SPDX-License-Identifier: Apache-2.0
"""The front doors. Modules and plugins call these.

- ``target``: registry, repository and servers of a run, as one value.
- ``inspection``: what is deployed; imports nothing that plans or changes.
- ``delivery``: brings a list of models to their desired state: observe, plan, carry out.
- ``observation``: what is there of each model of a list.
- ``surroundings``: what is there beside the models of a list.
- ``former_rules``: what older releases have deployed, judged by today's rules.
- ``sources``: what model URIs mean now, and where the files of that are.
- ``artifact_reader``: what lies in an artifact, as the model folder to be made of it.
- ``plan_builder``: plans each model, and again under its lock.
- ``swaps``: which deployments serve while they are replaced, by the memory of the GPUs.
- ``environments_used``: which Python environments are gone, and which nobody needs.
- ``preparation``: the Python environments of a list, made before anything else of it.
- ``purge``: which models of a deployment set are not named any more, and whether so many may go.
- ``report``: what a user is told of a model.
- ``registry_status``: tells the registry what a target has deployed.
"""
