"""How a process of ours is told to end."""

from __future__ import annotations

import asyncio
import os
import signal

EXIT_AT_ONCE = 128 + signal.SIGTERM


def on_signals(ending: asyncio.Event) -> None:
    """The first SIGTERM or SIGINT sets `ending`, the second ends the process: for the running loop."""

    def end() -> None:
        if ending.is_set():
            os._exit(EXIT_AT_ONCE)
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
