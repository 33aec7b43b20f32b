# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or
# https://www.gnu.org/licenses/gpl-3.0.txt)
"""The password of a package index is in no command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.triton.plugins.filter.pip_options import pip_options

SECRET = "http://me:pass%2Fw0rd@127.0.0.1:1/simple"


@pytest.mark.parametrize(
    "arguments", [["--index-url", SECRET], [f"--index-url={SECRET}"], ["-i", SECRET]]
)
def test_an_address_with_a_password_goes_into_a_file_that_pip_reads(
    arguments: list[str], tmp_path: Path
) -> None:
    found = pip_options(["--no-cache-dir", *arguments, "--retries", "0"])
    assert found["words"] == ["--no-cache-dir", "--retries", "0"]
    file = tmp_path / "pip.conf"
    file.write_text(found["settings"])
    words = ["download", "--no-input", "--timeout=1", "--no-cache-dir", "--retries=0", "nothing"]
    said = subprocess.run(
        [sys.executable, "-m", "pip", *words],
        env={"PIP_CONFIG_FILE": str(file), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    output = said.stdout + said.stderr
    assert "Looking in indexes: http://me:****@127.0.0.1:1/simple" in output
    assert "is ignored" not in output


def test_several_addresses_of_one_option_are_kept() -> None:
    other = SECRET.replace("me:", "you:")
    settings = pip_options(["--extra-index-url", SECRET, f"--extra-index-url={other}"])["settings"]
    assert settings == f"[global]\nextra-index-url = {SECRET}\n    {other}\n"


def test_arguments_without_a_password_stay_as_they_are() -> None:
    words = ["--no-index", "--find-links", "/wheels", "-i", "https://pip.example.com/simple"]
    assert pip_options(words) == {"words": words, "settings": ""}


def test_a_password_that_is_no_value_of_an_option_is_refused_without_being_shown() -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        pip_options([SECRET])
    assert "w0rd" not in str(caught.value)
