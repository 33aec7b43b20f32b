# SPDX-License-Identifier: Apache-2.0
"""What the tests, the benchmarks and the quickstart share. pytest's ``pythonpath`` finds it.

``servers`` starts real servers; ``models`` and ``train`` make models. ``deliveries`` publishes and
delivers in the test's own process, ``modules`` runs a module there, ``playbooks`` runs Ansible and
``plugin`` MLflow's command line. ``fault_proxy`` and ``certificates`` stand before a server.
``logged_models`` are what data scientists log, in a Python of ``pyfunc_environment``;
``pyfunc_logs`` has them logged and asked. ``bench``, ``child`` and ``rows`` are of the tests of
faults, ``gpu_host`` of those of GPUs.
"""
