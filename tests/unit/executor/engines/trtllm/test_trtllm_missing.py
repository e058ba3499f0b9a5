"""Without the wheel: everything can be checked, nothing can be started."""

from __future__ import annotations

import importlib.util

import pytest
from tests.unit.executor.engines.trtllm.trtllm_profiles import MODEL, profile

from paretoserve.domain.errors import EngineError
from paretoserve.executor.catalog import create


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_llm") is not None, reason="it is here")
async def test_a_start_names_the_missing_package() -> None:
    engine = create(profile(), MODEL)
    with pytest.raises(EngineError, match=r"needs a package that is not installed: .*tensorrt_llm"):
        await engine.start()
    await engine.stop()
