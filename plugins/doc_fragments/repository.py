# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  model_repository:
    description:
      - The folder that Triton was started with as C(--model-repository), as the host that runs this
        module sees it.
      - Or a prefix in S3, written as Triton writes it, C(s3://bucket/prefix),
        C(s3://http://host:port/bucket/prefix) or C(s3://https://host:port/bucket/prefix). The
        collection's C(docs/s3.md) says what S3 cannot promise.
      - The environment variable E(TRITON_MODEL_REPO) is used when it is omitted.
    type: str
  state_dir:
    description:
      - Folder for records, locks, staging and retained copies. It must lie on the file system of
        O(model_repository).
      - When omitted, the folder that the repository's marker file names. A repository without a
        marker gets C(<model_repository>.mlops-triton), or C(<model_repository>/.mlops-triton) where
        it is a mount point or its parent folder cannot be written.
      - For a repository in S3, a prefix in the same bucket. When omitted,
        C(<prefix>.mlops-triton/), or C(.mlops-triton/) where the repository is a whole bucket.
    type: path
  s3:
    description:
      - How to reach a repository in S3. boto3 looks for what is omitted in the environment
        (E(AWS_ACCESS_KEY_ID), E(AWS_SECRET_ACCESS_KEY), E(AWS_SESSION_TOKEN), E(AWS_PROFILE),
        E(AWS_DEFAULT_REGION)), in the user's files, and on the instance.
      - No record keeps it. Triton itself needs credentials of its own.
    type: dict
    suboptions:
      access_key:
        description: Access key id. It goes with O(s3.secret_key).
        type: str
      secret_key:
        description: Secret access key.
        type: str
      session_token:
        description: Token of temporary credentials.
        type: str
      profile:
        description: Profile in the user's files.
        type: str
      region:
        description: Region of the bucket.
        type: str
      ca_file:
        description: Certificates to trust for a store with HTTPS.
        type: path
  lock_timeout:
    description: Seconds to wait for another run that is changing the same model.
    type: float
    default: 60.0
"""
