# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
requirements:
  - mlflow-skinny >= 2.11.3, < 4 (or mlflow), for everything that asks a registry
  - tritonclient[http,grpc] >= 2.41, for everything that asks a Triton server
  - boto3 >= 1.36, for a model repository in S3 only
  - treelite >= 4.4, < 5, for models of MLflow's sklearn flavor only
  - model-signing >= 1.1, < 2 and pyOpenSSL >= 24, for signatures of models only
  - uv >= 0.9, < 1 (or that program on PATH), for environments of Python models only
"""
