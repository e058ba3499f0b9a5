"""What an exit status tells."""

from __future__ import annotations

import pytest

from paretoserve.executor.exit_status import explain


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "exited with status 0"),
        (1, "exited with status 1"),
        (128, "exited with status 128"),
        (137, "exited with status 137, which is SIGKILL (memory ran out, or an engine took itself"),
        (134, "exited with status 134, which is SIGABRT (native code gave up"),
        (143, "exited with status 143, which is SIGTERM"),
        (255, "exited with status 255"),
        (-9, "killed by SIGKILL (memory ran out"),
        (-11, "killed by SIGSEGV (native code crashed)"),
        (-7, "killed by SIGBUS (shared memory ran out; give the container a larger /dev/shm)"),
        (-15, "killed by SIGTERM"),
        (-40, "killed by signal 40"),
        (168, "exited with status 168, which is signal 40"),
    ],
)
def test_explain(status: int, said: str) -> None:
    assert explain(status).startswith(said)
    assert ("(" in explain(status)) == ("(" in said)
