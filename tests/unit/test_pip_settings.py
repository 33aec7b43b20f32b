# SPDX-License-Identifier: Apache-2.0
"""What pip is told on this machine is told to uv as well: tools/pip_settings.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import pip_settings  # noqa: E402


def test_environment_wins_over_command_and_that_over_global() -> None:
    listing = "\n".join(
        [
            ":env:.index-url='file:///three'",
            "global.index-url='file:///one'",
            "global.timeout='5'",
            "install.index-url='file:///two'",
            "install.timeout='6'",
            "download.index-url='file:///not/ours'",
        ]
    )
    assert pip_settings.parse(listing) == {"index-url": "file:///three", "timeout": "6"}


def test_lists_of_a_file_are_lists_of_uv() -> None:
    listing = "global.find-links='\\n/one\\n/two'\nglobal.extra-index-url='file:///a file:///b'"
    told = pip_settings.for_uv(pip_settings.parse(listing), {})
    assert told["UV_FIND_LINKS"] == "/one,/two"
    assert told["UV_INDEX"] == "file:///a file:///b"
    # As pip does it: the best version of all of them.
    assert told["UV_INDEX_STRATEGY"] == "unsafe-best-match"


@pytest.mark.parametrize(
    ("option", "value", "variable", "wanted"),
    [
        ("index-url", "https://name:password@index.invalid/simple", "UV_DEFAULT_INDEX", None),
        ("trusted-host", "one.invalid two.invalid:80", "UV_INSECURE_HOST", None),
        ("constraint", "/etc/constraints.txt", "UV_CONSTRAINT", None),
        ("cert", "/etc/bundle.pem", "SSL_CERT_FILE", None),
        ("client-cert", "/etc/client.pem", "SSL_CLIENT_CERT", None),
        ("proxy", "http://proxy.invalid:3128", "ALL_PROXY", None),
        ("timeout", "60", "UV_HTTP_TIMEOUT", None),
        ("default-timeout", "60", "UV_HTTP_TIMEOUT", None),
        ("no-index", "true", "UV_NO_INDEX", "1"),
        ("pre", "1", "UV_PRERELEASE", "allow"),
    ],
)
def test_each_setting_has_its_counterpart(
    option: str, value: str, variable: str, wanted: str | None
) -> None:
    assert pip_settings.for_uv({option: value}, {})[variable] == (wanted or value)


def test_switch_that_is_off_is_not_told() -> None:
    assert "UV_NO_INDEX" not in pip_settings.for_uv({"no-index": "false"}, {})


def test_pips_own_certificates_win_over_those_of_the_environment() -> None:
    environment = {"REQUESTS_CA_BUNDLE": "/requests.pem"}
    assert pip_settings.for_uv({}, environment)["SSL_CERT_FILE"] == "/requests.pem"
    environment["SSL_CERT_FILE"] = "/ssl.pem"
    assert pip_settings.for_uv({}, environment)["SSL_CERT_FILE"] == "/ssl.pem"
    assert pip_settings.for_uv({"cert": "/pip.pem"}, environment)["SSL_CERT_FILE"] == "/pip.pem"


def test_what_uv_itself_was_told_wins() -> None:
    told = pip_settings.for_uv(
        {"index-url": "file:///of/pip"}, {"UV_DEFAULT_INDEX": "file:///of/uv", "HOME": "/root"}
    )
    assert told["UV_DEFAULT_INDEX"] == "file:///of/uv"
    assert "HOME" not in told


def test_setting_without_counterpart_is_named() -> None:
    with pytest.raises(pip_settings.UnknownSetting, match="no-binary"):
        pip_settings.for_uv({"quiet": "1", "no-binary": ":all:"}, {})


def test_another_pip_is_told_by_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nfind-links =\n    /one\n    /two\n[install]\nno-index = true\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_TIMEOUT", "7")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.setenv("NO_PROXY", "localhost")
    told = pip_settings.of_this_machine()
    assert told["PIP_FIND_LINKS"] == "/one /two"
    assert told["PIP_NO_INDEX"] == "true"
    assert told["PIP_TIMEOUT"] == "7"
    assert told["NO_PROXY"] == "localhost"
    # The file is not there, where they are told.
    assert "PIP_CONFIG_FILE" not in told
