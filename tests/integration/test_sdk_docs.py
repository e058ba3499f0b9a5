"""The code in docs/sdk.md runs as it stands, against another address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.sdk_gateway import scripted_gateway

DOCUMENT = Path(__file__).parents[2] / "docs" / "sdk.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
ADDRESS = "127.0.0.1:9000"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with scripted_gateway() as (address, _):
        yield address


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[-1].strip())
def test_block_runs(block: str, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ADDRESS in block
    code = compile(block.replace(ADDRESS, address), str(DOCUMENT), "exec")
    exec(code, {"__name__": "__main__"})  # the documentation's own code
    assert "print(" not in block or capsys.readouterr().out


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 7
