# SPDX-License-Identifier: Apache-2.0
"""What is said of environments: options, and what uv says when it fails."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments.bounded import (
    Bounds,
    run,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments.options import (
    EnvironmentOptions,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments.pythons import (
    Python,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments.resolving import (
    Lock,
    environment_digest,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.environments.uv_words import (
    explain,
)
from ansible_collections.mlops.triton.plugins.module_utils._delivery.errors import InvalidOption
from hypothesis import given
from hypothesis import strategies as st

INDEX, OFFLINE = EnvironmentOptions(), EnvironmentOptions(no_index=True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("a", "not a mapping"),
        ({"index": "x"}, "has no option 'index': it has folder"),
        ({"folder": "environments"}, "folder of environments: 'environments' is no absolute path"),
        ({"pythons": ["python3.11"]}, "'python3.11' is no absolute path"),
        ({"pythons": "/usr/bin/python3"}, "pythons of environments is not a list"),
        ({"pythons": [""]}, "pythons of environments has an empty entry"),
        ({"folder": 3}, "folder of environments is not a text"),
        ({"index_url": "index.example"}, "index_url of environments: 'index.example' is neither"),
        ({"index_url": "https://u:secret@i.example/ x"}, "has spaces or commas"),
        ({"find_links": ["/a,/b"]}, "has spaces or commas"),
        ({"extra_index_urls": ["ftp://u:secret@i.example"]}, "is neither an address"),
        ({"source_distributions": "yes"}, "is neither true nor false"),
        ({"no_index": True}, "needs find_links"),
        ({"no_index": True, "find_links": ["/w"], "index_url": "https://i"}, "contradicts"),
    ],
    ids=range(14),
)
def test_options_that_cannot_be_meant_are_refused(given: Any, words: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        EnvironmentOptions.from_options(given)
    assert words in str(caught.value) and "secret" not in str(caught.value)


def test_options_are_read_as_they_are_meant() -> None:
    assert EnvironmentOptions.from_options(None) == EnvironmentOptions()
    found = EnvironmentOptions.from_options(
        {
            "folder": "/srv/environments/",
            "pythons": ["/usr/bin/python3.11"],
            "index_url": "https://reader:canary-9@i.example/simple",
            "extra_index_urls": ["/srv/index"],
            "find_links": ["/srv/wheels"],
            "source_distributions": True,
            "python_mirror": None,
        }
    )
    assert found.folder == "/srv/environments" and found.find_links == ("/srv/wheels",)
    assert found.extra_index_urls == ("file:///srv/index",) and found.source_distributions
    assert "canary-9" not in repr(found) and "canary-9" not in str(found.sources)


@pytest.mark.parametrize(
    ("said", "options", "words"),
    [
        (
            (
                "error: No solution found when resolving dependencies\n  cause: Because zz was not"
                " found in the package registry and you require zz==1.0, we can conclude that your"
                " requirements are unsatisfiable."
            ),
            INDEX,
            "the index does not have the package 'zz'",
        ),
        ("Because zz was not found in the provided package", OFFLINE, "the wheelhouse (find_links"),
        ("Because there is no version of aa==3 and you require aa==3", INDEX, "version of 'aa==3'"),
        (
            (
                "Because there is no version of aa==3 and bb depends on aa==3, bb and cc are"
                " incompatible"
            ),
            INDEX,
            "contradict each other (Because there",
        ),
        (
            "Because ee==1.0 has no wheels with a matching Python ABI tag (e.g., `cp311`)",
            INDEX,
            "no wheel of 'ee' 1.0",
        ),
        ("Because gg==1.0 has no usable wheels and only gg==1.0", INDEX, "no wheel of 'gg' 1.0"),
        ("hint: Wheels are required for `gg` because", INDEX, "no wheel of 'gg'"),
        (
            "error: Failed to download `aa==1.0`\n cause: Hash mismatch for `aa==1.0`",
            INDEX,
            "aa==1",
        ),
        ("failed to write: No space left on device (os error 28)", INDEX, "the disk is full"),
        ("x Failed to build `h2==1.0`\n boom", INDEX, "source distribution of h2==1.0"),
        ("Failed to fetch: `https://u:canary@i.example/simple/`", INDEX, "cannot be reached"),
        (
            "error: Failed to install cpython-3.9.25-linux\n cause: 404",
            INDEX,
            "does not bring cpyth",
        ),
        ("", INDEX, "uv failed: it does not say why"),
        ("\x1b[31merror\u202e: odd", INDEX, "uv failed: "),
    ],
    ids=range(14),
)
def test_what_uv_says_is_one_sentence(said: str, options: EnvironmentOptions, words: str) -> None:
    found = explain(said, options)
    assert words in found
    assert "canary" not in found and "\x1b" not in found and "\u202e" not in found


@given(st.text(max_size=300), st.integers(0, 4))
def test_properties_of_anything_that_uv_says(text: str, times: int) -> None:
    found = explain(f"{text}Because {text * 10**times}", INDEX)
    assert "\n" not in found and 0 < len(found) < 1000


def test_a_digest_is_over_lock_python_and_platform() -> None:
    lock, python = Lock({("a", "1"): ("sha256:0",)}), Python("/p", "3.11.2", "linux-x86_64")
    same = environment_digest(Lock({("a", "1"): ("sha256:0",)}), python)
    assert environment_digest(lock, python) == same
    others = [
        environment_digest(Lock({("a", "2"): ("sha256:0",)}), python),
        environment_digest(Lock({("a", "1"): ("sha256:1",)}), python),
        environment_digest(lock, Python("/p", "3.11.3", "linux-x86_64")),
        environment_digest(lock, Python("/p", "3.11.2", "linux-aarch64")),
    ]
    assert len({same, *others}) == 5
    assert environment_digest(lock, Python("/q", "3.11.2", "linux-x86_64")) == same


def wait_for_the_end(process: int) -> bool:
    """Whoever adopts it may take a moment to bury it."""
    for _time in range(500):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_what_a_program_starts_does_not_outlive_it() -> None:
    """Nor is it waited for, though it holds what the program said things to."""
    ended = run(["/bin/sh", "-c", "sleep 600 & echo $!"], {"PATH": "/bin:/usr/bin"}, Bounds(30))
    assert ended.code == 0 and not ended.late
    assert wait_for_the_end(int(ended.output))


def test_a_program_that_does_not_end_is_ended_and_says_so_much_only() -> None:
    endless = "while :; do echo 'a line that is said again and again'; done"
    ended = run(["/bin/sh", "-c", endless], {"PATH": "/bin"}, Bounds(0.5))
    assert ended.late and ended.code < 0
    assert len(ended.output) == 256 << 10
