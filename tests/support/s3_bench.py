# SPDX-License-Identifier: Apache-2.0
"""Benches whose repository lies in S3."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.domain import config_pbtxt
from ansible_collections.mlops.triton.plugins.module_utils._delivery.repository.s3.repository import (  # noqa: E501
    S3Repository,
)

from .bench import FAST, NAME, Bench
from .certificates import Authority
from .servers import S3, Triton, s3_server, triton_server

STATE = "prod.mlops-triton/"


class S3Bench(Bench):
    """As ``Bench``, its repository being ``s3://…/<bucket>/prod``."""

    def __init__(self, folder: Path, triton: Triton, s3: S3, bucket: str) -> None:
        super().__init__(folder, triton, model_repository=f"s3://{s3.endpoint}/{bucket}/prod")
        self.s3, self.bucket = s3, bucket

    @functools.cached_property
    def in_store(self) -> S3Repository:
        """One for all questions: each would need 0.1 s of its own for a client."""
        return S3Repository(self.target["model_repository"], None, None, 20)

    @property
    def store(self) -> Any:
        return self.in_store.store

    def listed(self) -> list[str]:
        pages = self.s3.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return sorted(one["Key"] for page in pages for one in page.get("Contents", ()))

    def body(self, key: str) -> bytes:
        return bytes(self.s3.client.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def left_behind(
        self, retained: int | None = None, models_there: tuple[str, ...] = (NAME,)
    ) -> list[str]:
        found, copies, keys = [], set(), self.listed()
        for key in keys:
            inside = key.removeprefix("prod/")
            if key in ("prod/", "prod/.mlops-triton.json") or (
                inside != key and inside.split("/")[0] in models_there
            ):
                continue
            parts = key.removeprefix(STATE).split("/")
            if parts[0] == "retained" and parts[1] in models_there:
                copies.add((parts[1], parts[2]))
            elif not (parts[0] == "records" and parts[1].removesuffix(".json") in models_there):
                found.append(key)
        scratch = self.in_store.scratch.path
        found += [
            f"{scratch}/{entry}"
            for entry in (os.listdir(scratch) if os.path.isdir(scratch) else ())
        ]
        found += [
            f"{copy} of {name} has no record"
            for name, copy in copies
            if f"{STATE}retained/{name}/{copy}/record.json" not in keys
        ]
        return found + (
            [f"{len(copies)} copies instead of {retained}"]
            if retained is not None and len(copies) != retained
            else []
        )

    def check_agreement(
        self, identity: int | None, *, retained: int | None = None, name: str = NAME
    ) -> None:
        if identity is None:
            assert self.record(name) is None
            assert not any(
                row.get("state") == "READY" for row in self.triton.index() if row["name"] == name
            )
            assert self.left_behind(models_there=()) == []
            return
        self.check_agreement_of(name, identity)
        assert self.left_behind(retained) == []

    def check_agreement_of(self, name: str, identity: int) -> None:
        record = self.record(name)
        assert self.identity(name) == identity
        assert record is not None
        served = self.served_config(name)["parameters"][config_pbtxt.DEPLOY_ID_KEY]["string_value"]
        assert (
            served
            == record.deploy_id
            == config_pbtxt.deploy_id_of(self.body(f"prod/{name}/config.pbtxt"))
        )
        assert (
            f"IDENTITY = {identity}\n"
            in self.body(f"prod/{name}/{max(record.triton_versions)}/model.py").decode()
        )
        live = {
            key.removeprefix(f"prod/{name}/")
            for key in self.listed()
            if key.startswith(f"prod/{name}/")
        }
        assert live == {
            *(entry["path"] for entry in record.manifest["files"]),
            "config.pbtxt",
            "mlflow-meta.json",
        }
        assert self.drift(name) == []

    def wipe(self) -> None:
        self.triton.kill()
        for key in self.listed():
            self.s3.client.delete_object(Bucket=self.bucket, Key=key)
        # What runs of the former repository made here, and were killed over.
        shutil.rmtree(self.in_store.scratch.path, ignore_errors=True)
        self.triton.start()


@contextlib.contextmanager
def s3_bench(folder: Path, s3: S3, bucket: str) -> Iterator[S3Bench]:
    s3.client.create_bucket(Bucket=bucket)
    with triton_server(
        folder / "triton",
        repository=f"s3://{s3.endpoint}/{bucket}/prod",
        extra_args=FAST,
        metrics_port=0,
        backend_directory=folder.parent / "backends",
        environment=s3.environment,
    ) as triton:
        bench = S3Bench(folder, triton, s3, bucket)
        bench.sample(1)
        bench.sample(2)
        try:
            yield bench
        finally:
            bench.close()


@contextlib.contextmanager
def s3_benches(folder: Path, *names: str) -> Iterator[list[S3Bench]]:
    """With one store; the credentials are in the environment meanwhile."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in S3.environment.items():
            patch.setenv(name, value)
        # The store speaks plain HTTP; Triton and its start wrapper read a hundred and fifty
        # authorities at each start nevertheless, in half of its time.
        one = Authority(folder / f"{names[0]}-authority").ca_file
        for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"):
            patch.setenv(name, one)
        s3 = stack.enter_context(s3_server(folder / f"{names[0]}-store"))
        yield [stack.enter_context(s3_bench(folder / name, s3, name)) for name in names]
