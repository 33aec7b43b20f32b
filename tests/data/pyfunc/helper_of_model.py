# SPDX-License-Identifier: Apache-2.0
"""What a model brings by its code_paths."""


def doubled(values):
    return values * 2
