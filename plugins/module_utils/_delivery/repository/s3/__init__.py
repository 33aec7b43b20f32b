# SPDX-License-Identifier: Apache-2.0
"""A repository in S3, which knows no rename.

- ``location``: ``s3://bucket/prefix`` and its other spellings, and where the state lies.
- ``bucket``: one bucket: deadlines, errors as sentences, checked uploads.
- ``boto3_bucket``: its calls made by boto3.
- ``signed_bucket``: its calls made without boto3, for the start wrapper.
- ``lock``: a model's lock as a key: conditional writes, expiry, renewal.
- ``state_store``: records, journals, locks, staging and retained copies as keys.
- ``changes``: journalled changes of a model's keys, copied in an order, undone or finished.
- ``candidate``: a new deployment under the name that it is proven under.
- ``repository``: what ``folder`` is for a folder.
"""
