"""A loop on its own thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from paretoserve.app.serve.loop_thread import LoopThread


async def test_runs_elsewhere_returns_results_and_raises_errors():
    thread = LoopThread("test-loop")

    async def where() -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    async def fail() -> None:
        raise KeyError("told")

    assert await thread.call(where()) != threading.get_ident()
    with pytest.raises(KeyError, match="told"):
        await thread.call(fail())
    await asyncio.to_thread(thread.close)
    thread.close()
    assert "test-loop" not in {t.name for t in threading.enumerate()}
