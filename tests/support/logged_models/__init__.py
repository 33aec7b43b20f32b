# SPDX-License-Identifier: Apache-2.0
"""Models that data scientists log: ``log`` is the program, in a Python of ``pyfunc_environment``;
``values`` is also what the tests compare with.
"""
