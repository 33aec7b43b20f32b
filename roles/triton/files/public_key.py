# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of a downloaded OpenPGP key, without a program that a host may lack.

    python public_key.py '{"source": path, "fingerprint": "…", "target": path}'

Role triton sends this file to the host through stdin. Where the source is one armoured public key
with that fingerprint and nothing else, it is written to the target, unarmoured, and the answer is
{"problem": "", "changed": whether the target was another}; otherwise the target stays as it is and
the problem is one sentence. What the key signed is for apt to check.
"""

import argparse
import base64
import binascii
import hashlib
import json
import os
import re
import sys
from typing import Dict, List, Tuple, Union

BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
END = "-----END PGP PUBLIC KEY BLOCK-----"
PUBLIC_KEY, SECRET_KEYS = 6, (5, 7)
LIMIT = 1 << 20


class KeyFault(Exception):
    """The text is the end of a sentence."""


def unarmoured(text: str) -> bytes:
    """The packets of the one block that a text is."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) < 4 or lines[0] != BEGIN or lines[-1] != END or "" not in lines:
        raise KeyFault("is no armoured public key")
    body = [line for line in lines[lines.index("") + 1 : -1] if line]
    # The last line may be a checksum, which proves nothing here.
    if body and body[-1].startswith("="):
        body.pop()
    if not all(re.match(r"[A-Za-z0-9+/]+={0,2}$", line) for line in body):
        raise KeyFault("holds more than one armoured public key")
    try:
        return base64.b64decode("".join(body), validate=True)
    except binascii.Error:
        raise KeyFault("is damaged") from None


def packets(data: bytes) -> List[Tuple[int, bytes]]:
    """Tag and body of each packet, of which nothing may be left over."""
    found, place = [], 0
    while place < len(data):
        tag, length, place = head(data, place)
        body = data[place : place + length]
        if len(body) != length:
            raise KeyFault("is damaged")
        found.append((tag, body))
        place += length
    return found


def head(data: bytes, place: int) -> Tuple[int, int, int]:
    """Tag, length of the body, and where that begins."""
    try:
        first = data[place]
        if not first & 0x80:
            raise KeyFault("is damaged")
        if not first & 0x40:
            size = (1, 2, 4)[first & 3]
            end = place + 1 + size
            return (first >> 2) & 0x0F, number(data[place + 1 : end], size), end
        length = data[place + 1]
        if length < 192:
            return first & 0x3F, length, place + 2
        if length < 224:
            return first & 0x3F, ((length - 192) << 8) + data[place + 2] + 192, place + 3
        if length == 255:
            return first & 0x3F, number(data[place + 2 : place + 6], 4), place + 6
    except IndexError:
        pass
    raise KeyFault("is damaged")


def number(data: bytes, size: int) -> int:
    if len(data) != size:
        raise KeyFault("is damaged")
    return int.from_bytes(data, "big")


def fingerprint(data: bytes) -> str:
    """Of the only key in the packets."""
    found = packets(data)
    keys = [body for tag, body in found if tag == PUBLIC_KEY]
    if any(tag in SECRET_KEYS for tag, _body in found):
        raise KeyFault("holds a secret key")
    if len(keys) != 1 or found[0][0] != PUBLIC_KEY:
        raise KeyFault("holds {} keys, and one is wanted".format(len(keys)))
    if keys[0][:1] != b"\x04":
        raise KeyFault("is a key of a version that this role does not know")
    return hashlib.sha1(b"\x99" + len(keys[0]).to_bytes(2, "big") + keys[0]).hexdigest().upper()


def prove(question: Dict[str, str]) -> Dict[str, Union[str, bool]]:
    wanted = re.sub(r"\s", "", question["fingerprint"]).upper()
    try:
        with open(question["source"], encoding="utf-8", errors="replace") as stream:
            data = unarmoured(stream.read(LIMIT))
        found = fingerprint(data)
    except KeyFault as fault:
        return {"problem": str(fault), "changed": False}
    if found != wanted:
        return {"problem": "has the fingerprint {}".format(found), "changed": False}
    return {"problem": "", "changed": write(question["target"], data)}


def write(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as stream:
            if stream.read() == data:
                return False
    except OSError:
        pass
    new = path + ".new"
    with open(new, "wb") as stream:
        stream.write(data)
    os.chmod(new, 0o644)
    os.replace(new, path)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Proves a downloaded key by its fingerprint.")
    parser.add_argument("question", help="JSON object")
    print(json.dumps(prove(json.loads(parser.parse_args().question))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
