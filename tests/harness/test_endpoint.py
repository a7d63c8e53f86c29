"""Addresses, keys and what servers say about waiting; the failures are tested with the judge and the engine."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahabench.harness.endpoint import Endpoint, one_line, retry_after_s
from ahabench.harness.errors import UsageError


def endpoint(url: str = "http://host/v1", key_variable: str = "OPENAI_API_KEY") -> Endpoint:
    return Endpoint(url, role="engine", timeout_s=1, max_body_bytes=10, key_variable=key_variable)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 0), ("0", 0), (" 20 ", 20), ("0.2", 1), ("1.5", 2), ("-3", 0), ("1e9", 0), ("99999999", 0), ("nan", 0)],
)
def test_the_seconds_to_wait_are_read_and_rounded_up(header: str, seconds: int) -> None:
    assert retry_after_s(header) == seconds


def test_a_date_to_wait_for_is_read() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 28 <= retry_after_s(soon) <= 30


def test_a_date_that_has_passed_is_no_reason_to_wait() -> None:
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@given(st.text(max_size=200) | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [-+A-Z\d]+"))
def test_no_header_is_an_error(header: str) -> None:
    assert retry_after_s(header) >= 0


@given(st.text())
def test_one_line_is_short_and_printable(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 300
    assert line.isprintable()


def test_a_role_and_its_variable_stand_in_the_error() -> None:
    with pytest.raises(UsageError, match=r"^engine URL of host has more than a host and a path; .* MY_KEY$"):
        endpoint("http://host/v1?a=1", "MY_KEY")


def test_a_variable_other_than_the_usual_one_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " ")
    with pytest.raises(UsageError, match="MY_KEY"):
        endpoint(key_variable="MY_KEY")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert endpoint().url == "http://host/v1"
