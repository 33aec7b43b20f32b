# SPDX-License-Identifier: Apache-2.0
"""Carries out plans: the only package that changes what is deployed.

- ``list_executor``: the plans of a list: each in its turn and under its lock, planned again there.
- ``executor``: ``apply(plan)``: the steps, the record, and the way back when one fails.
- ``transaction``: what one transaction has done so far.
- ``proven_files``: which files are those of the deployment, for the record.
- ``replacement``: the steps that bring new files or a new configuration.
- ``python_models``: environment and model folder of what MLflow's own code answers for.
- ``rollback``: the step that brings a retained deployment back.
- ``serving``: the servers' part: load until proven, unload, bring back what was served.
- ``trial``: a new deployment is proven under another name.
- ``pending_loads``: how long a load is waited for that an earlier run gave up on.
- ``verification``: an inference proves that a model serves.
- ``pyfunc_cases``: what a user says to verify a model with that MLflow's pyfunc runs.
- ``reach``: which GPUs and instances have answered.
- ``gpu_memory``: who may load at the same time, when an old copy is gone, what one took.
- ``out_of_memory``: errors that mean that memory was too little, in our words.
- ``scheduler``: several threads do jobs, each when those before it are done.
- ``limits``: how many downloads and loads at once, and the room that they take.
"""
