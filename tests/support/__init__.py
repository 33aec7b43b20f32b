# SPDX-License-Identifier: Apache-2.0
"""What the tests, the benchmarks and the quickstart share. pytest's ``pythonpath`` finds it.

``servers`` starts real servers, ``models`` and ``train`` make models, ``playbooks`` runs Ansible,
``plugin`` MLflow's command line, ``deliveries`` does the same in the test's own process.
``fault_proxy`` and ``certificates`` stand before a server. ``bench``, ``child`` and ``rows`` are of
the tests of faults, ``gpu_host`` of those of GPUs.
"""
