# SPDX-License-Identifier: Apache-2.0
"""Where models and the state of their deployments lie: a folder of this host, or S3.

- ``protocol``: what the steps of a transaction ask of a repository of either kind.
- ``factory``: opens one.
- ``folder``: a repository that is a folder: made, swapped, retained and removed by renames.
- ``state_store``: its records, journals, locks, staging and retained copies.
- ``ownership``: what root believes of a state, and as whom it acts there.
- ``recovery``: what a killed run left is undone or finished.
- ``candidate``: a new deployment under the name that it is proven under.
- ``retention``: which retained copies are superfluous, and their removal.
- ``kept``: files of a deployment, in place or in a retained copy.
- ``known_bytes``: files whose bytes are known by how they look.
- ``comparison``: which files are not those that were deployed.
- ``scratch``: a private folder of this host in which is made what goes elsewhere.
- ``s3``: the same for a repository in S3.
"""
