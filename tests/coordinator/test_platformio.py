"""What is added to PlatformIO's own words."""

import pytest

from coordinator.platformio import hint


@pytest.mark.parametrize(
    ("words", "helps"),
    [
        ("Platform Manager: Installing espressif32\nHTTPClientError: ", True),
        ("InternetConnectionError: You are not connected to the Internet.", True),
        ("avrdude error: unable to open programmer arduino on port /dev/a", False),
        ("main.c:3: error: HTTPClientError undeclared", False),
    ],
)
def test_an_unreached_registry_is_explained(words: str, helps: bool) -> None:
    assert ("did not reach its registry" in hint(words)) is helps
