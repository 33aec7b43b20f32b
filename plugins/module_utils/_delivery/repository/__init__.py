# SPDX-License-Identifier: Apache-2.0
"""Where models and the state of their deployments lie: a folder of this host, or S3.

- ``protocol``: what the steps of a transaction ask of a repository of either kind.
- ``factory``: opens one.
- ``folder``: a repository that is a folder: made, swapped, retained and removed by renames.
- ``state_store``: its records, journals, locks, staging and retained copies.
- ``recovery``: what a killed run left is undone or finished.
- ``retention``: which retained copies are superfluous, and their removal.
- ``kept``: files of a deployment, in place or in a retained copy.
- ``comparison``: which files are not those that were deployed.
- ``s3``: the same for a repository in S3.
"""
