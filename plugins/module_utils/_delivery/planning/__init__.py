# SPDX-License-Identifier: Apache-2.0
"""Decisions. No I/O: the same values give the same plan.

- ``plan``: the plan of one model as a frozen value: steps that carry their data, before, after.
- ``planner``: from what is wanted and what is there to the plan.
- ``versions``: registry versions side by side in one model folder.
- ``in_place``: what Triton applies without initialising the model again.
- ``aside``: whether a new deployment is proven under another name first.
- ``gpu_need``: how much memory of GPUs a deployment is expected to take.
- ``swap``: whether the old deployment serves while the new one is loaded.
- ``policy``: what may be deployed.
- ``policy_options``: the options of a policy as values.
- ``outcome``: what came of each model of a list, or would come.
- ``dependencies``: which models of a list a model needs, and so comes after.
- ``members``: whether ensembles fit their members when the run is over.
- ``list_order``: which models of a list come after which.
- ``users``: what a change means for the deployed models that use the one that changes.
"""
