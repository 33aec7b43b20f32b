# SPDX-License-Identifier: Apache-2.0
"""A downloaded key is trusted by its fingerprint alone. The keys here, and theirs, are of gpg."""

from __future__ import annotations

import base64
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[2] / "roles/triton"
FINGERPRINT = "7D5ADCE3EE7DFD1A6DF13D621C155995088FF53C"
KEY = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawzO0RYJKwYBBAHaRw8BAQdA5YGmbRmLM6D3kvEHYo/ca7zTahCtyEnWbav5
WXDR9wK0GU90aGVyIDxvdGhlckBleGFtcGxlLm9yZz6IkAQTFggAOBYhBH1a3OPu
ff0abfE9YhwVWZUIj/U8BQJrDM7RAhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheA
AAoJEBwVWZUIj/U85LEBALrePK6ivjkxztuyxZmytZN3sf4JUIo3juZuLobhnFlc
AP4mGpQ3DOeu7i/2qyclOhOjx3HmmGLRYaK1Tkslla6SCw==
=pwLx
-----END PGP PUBLIC KEY BLOCK-----
"""
TWO_KEYS = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mQENBGsMztEBCADkfpa46Yhv2+MFgJ9VBTLfkDbew4o8PZXDcoAWsNlA9mKcykaw
W0lCF+XeWrVg0w90KKGnamXRxayDOOLVqMfah0UiWj8pw+DUpWSf1Q0HiWHaIh1J
70AZwOzR5y2koVZ2sUYy9S7aFsBYwCLnZrnxgZIyLJAL/LyOjdD1+ff7iVFYXvxy
N1VwGIt7X8Qlbnnwt7/G345ufbfORu8QNpBZFMVZMyFUYft4z23XIIt7ChpPQG7G
A4alGFvdc8jY9rlWd3BlQHmrDz9o7jUamy66J1zYBRjw8wUtBOoB6Cs3sB3F7ePI
nACd2Zl/uzUs5loNqiF+l37xEWHlJw7GoZc/ABEBAAG0F1Rlc3QgPHRlc3RAZXhh
bXBsZS5vcmc+iQFOBBMBCgA4FiEEBFlU7bGyhN9bP/rURHRBms7jc0MFAmsMztEC
GwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQRHRBms7jc0MPpgf/WZ8xLwDk
EEXFXpfQD6N0vX+7iBJbuZCa2VSi2rauqbpCQSTrL/wEiEd+DaK/nnDtJSpbxsC9
IbtalBidn+50Q463Azu6N5h7xxT82d4D4FW658XCiqBhVp07muFe+gX7wyCSaK1H
nuQ4RZpYajRuHN8Z+o16hCcdJTt6sbRs1NZXrJc3MjL4yngdhM5xvg3DYPRedGpe
LT3U5uYEo2+7oKiBkQ9bfnCWDNbAZjjOYmHQpguemPuaNj5g7sh/yfVEjpuFFlFF
8L1J8SUrKs5x2z+4v29E/B3tAEmCDmsqrOvqzGMZYi2T6HatuC9yOSKmUFIJ5eqI
cLLQBKq3tv9Ri5gzBGsMztEWCSsGAQQB2kcPAQEHQOWBpm0ZizOg95LxB2KP3Gu8
02oQrchJ1m2r+Vlw0fcCtBlPdGhlciA8b3RoZXJAZXhhbXBsZS5vcmc+iJAEExYI
ADgWIQR9Wtzj7n39Gm3xPWIcFVmVCI/1PAUCawzO0QIbAwULCQgHAgYVCgkICwIE
FgIDAQIeAQIXgAAKCRAcFVmVCI/1POSxAQC63jyuor45Mc7bssWZsrWTd7H+CVCK
N47mbi6G4ZxZXAD+JhqUNwznru4v9qsnJToTo8dx5phi0WGitU5LJZWukgs=
=UFxV
-----END PGP PUBLIC KEY BLOCK-----
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("public_key", ROLE / "files/public_key.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


public_key = load()


def asked(folder: Path, text: str, fingerprint: str = FINGERPRINT) -> dict[str, Any]:
    source = folder / "key.asc"
    source.write_text(text)
    question = {
        "source": str(source),
        "fingerprint": fingerprint,
        "target": str(folder / "key.gpg"),
    }
    done = subprocess.run(
        [sys.executable, "-", json.dumps(question)],
        input=(ROLE / "files/public_key.py").read_text(encoding="utf-8"),
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_key_with_the_fingerprint_is_written_once(tmp_path: Path) -> None:
    spaced = " ".join(FINGERPRINT[at : at + 4] for at in range(0, 40, 4)).lower()
    assert asked(tmp_path, KEY, spaced) == {"problem": "", "changed": True}
    written = (tmp_path / "key.gpg").read_bytes()
    assert base64.b64encode(written).decode() in KEY.replace("\n", "")
    assert asked(tmp_path, KEY) == {"problem": "", "changed": False}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TWO_KEYS, "holds 2 keys, and one is wanted"),
        (KEY + KEY, "holds more than one armoured public key"),
        (KEY + "deb https://evil.example.org /\n", "is no armoured public key"),
        (KEY.replace("PUBLIC", "PRIVATE"), "is no armoured public key"),
        ("<html>not found</html>", "is no armoured public key"),
        ("", "is no armoured public key"),
    ],
)
def test_anything_else_is_refused_and_what_was_there_stays(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "key.gpg").write_bytes(b"former")
    assert asked(tmp_path, text) == {"problem": words, "changed": False}
    assert (tmp_path / "key.gpg").read_bytes() == b"former"


def test_a_changed_key_has_another_fingerprint(tmp_path: Path) -> None:
    data = bytearray(public_key.unarmoured(KEY))
    data[12] ^= 1
    changed = "\n".join([public_key.BEGIN, "", base64.b64encode(data).decode(), public_key.END, ""])
    told = asked(tmp_path, changed)
    assert told["problem"].startswith("has the fingerprint ") and FINGERPRINT not in told["problem"]
    assert not (tmp_path / "key.gpg").exists()


def test_a_key_that_was_cut_off_is_refused_wherever_it_was_cut() -> None:
    data = public_key.unarmoured(KEY)
    assert public_key.fingerprint(data) == FINGERPRINT
    whole = {0}
    place = 0
    while place < len(data):
        _tag, length, place = public_key.head(data, place)
        place += length
        whole.add(place)
    for end in set(range(len(data))) - whole:
        with pytest.raises(public_key.KeyFault):
            public_key.fingerprint(data[:end])


def test_apt_is_told_of_the_proven_file_and_the_default_is_a_fingerprint() -> None:
    tasks = (ROLE / "tasks/nvidia_toolkit.yml").read_text(encoding="utf-8")
    target = "/etc/apt/keyrings/nvidia-container-toolkit.gpg"
    assert f"target: {target}" in tasks and f"Signed-By: {target}" in tasks
    assert tasks.index("Prove it") < tasks.index("Name NVIDIA's packages to apt")
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    assert len(bytes.fromhex(defaults["triton_nvidia_key"])) == 20
