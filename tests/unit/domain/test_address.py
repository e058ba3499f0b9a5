"""HOST:PORT: what is one, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.domain.address import Address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("fast.llm.svc.:50051", "fast.llm.svc.", 50051),
        ("[::1]:9000", "::1", 9000),
        ("localhost:0", "localhost", 0),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_it_is_read_and_written(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", ":", "x:", ":8000", "x:y", "x:-1", "x:1.5", "x:65536", "x:99999", "x:\u0661"),
        *("::1:9000", "[]:1", "[::1:1", "::1]:1", "[::1]", "[x]:1", "http://x:1", "u@x:1", "a b:1"),
    ],
)
def test_what_is_none_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT, the port 0 to 65535"):
        Address.parse(text)


def test_where_any_port_means_nothing_0_is_refused() -> None:
    with pytest.raises(ValueError, match="the port 1 to 65535"):
        Address.parse("x:0", lowest=1)


@given(st.text(max_size=12))
def test_whatever_is_read_is_written_so_that_it_reads_the_same(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address


@given(st.ip_addresses(), st.integers(0, 65535))
def test_any_ip_address(ip: object, port: int) -> None:
    address = Address(str(ip), port)
    assert Address.parse(str(address)) == address
