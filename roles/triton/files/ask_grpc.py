# SPDX-License-Identifier: Apache-2.0
"""Asks a server over gRPC whether it is live, and whether it loads models on request only.

    python ask_grpc.py '{"address": "127.0.0.1:8001", "seconds": 300, "key": {"name": …, "file": …},
    "certificate": "/path/of/the/server's/cert.pem"}'

Role triton sends this file to the host through stdin, for a server without HTTP; it runs with the
client environment. The key's secret is read from its file, so that no command line has it. Prints
{"live": true or false, "explicit": true or false, "said": "…"}.
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

STEP = 10.0
NO_MODEL = "mlops-triton-no-such-model"


def name_in(certificate: str) -> str:
    """A name that the certificate is for: the server is asked at an address of this host, which
    need not be one of them.
    """
    fields = ssl._ssl._test_decode_cert(certificate)  # type: ignore[attr-defined]
    names = [value for _kind, value in fields.get("subjectAltName", ())]
    names += [value for row in fields["subject"] for key, value in row if key == "commonName"]
    return names[0].replace("*", "triton") if names else "localhost"


def connect(question: dict[str, Any]) -> Any:
    from tritonclient.grpc import InferenceServerClient

    certificate = question.get("certificate")
    if not certificate:
        return InferenceServerClient(question["address"])
    # The server's own file is what is trusted: what is asked is this server and no other.
    return InferenceServerClient(
        question["address"],
        ssl=True,
        root_certificates=certificate,
        channel_args=[("grpc.ssl_target_name_override", name_in(certificate))],
    )


def headers_of(question: dict[str, Any]) -> dict[str, str]:
    key = question.get("key")
    if not key:
        return {}
    secret = Path(key["file"]).read_text(encoding="utf-8").rstrip("\n")
    return {f"triton-grpc-protocol-{key['name']}": secret}


def answer(question: dict[str, Any]) -> dict[str, Any]:
    from tritonclient.utils import InferenceServerException

    client, said = connect(question), ""
    end = time.monotonic() + float(question["seconds"])
    while True:
        try:
            if client.is_server_live(client_timeout=STEP):
                break
            said = "it is not live"
        except InferenceServerException as error:
            said = error.message()
        if time.monotonic() > end:
            return {"live": False, "explicit": False, "said": said}
        time.sleep(1)
    try:
        # A server that is not in EXPLICIT mode refuses this; one that is takes any name.
        client.unload_model(NO_MODEL, headers=headers_of(question), client_timeout=3 * STEP)
    except InferenceServerException as error:
        return {"live": True, "explicit": False, "said": error.message()}
    return {"live": True, "explicit": True, "said": ""}


def main() -> int:
    parser = argparse.ArgumentParser(description="Asks a Triton server over gRPC, as JSON.")
    parser.add_argument("question", help="JSON object")
    print(json.dumps(answer(json.loads(parser.parse_args().question))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
