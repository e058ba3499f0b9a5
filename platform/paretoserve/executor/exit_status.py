"""What the exit status of an executor's process tells. Pure."""

from __future__ import annotations

import signal

_HINTS = {
    signal.SIGKILL: (
        "memory ran out, or an engine took itself down: TensorRT-LLM ends all its ranks with "
        "MPI_Abort when a step hangs for 300 s or a rank dies"
    ),
    signal.SIGABRT: "native code gave up, or MPI_Abort; the engine's log says why",
    signal.SIGSEGV: "native code crashed",
    signal.SIGBUS: "shared memory ran out; give the container a larger /dev/shm",
}


def explain(status: int) -> str:
    """How a process ended, from asyncio's return code: negative for a signal, else what it gave
    to `exit`, where 128 and more is a shell's and MPI's way to name a signal.
    """
    if status < 0:
        return f"killed by {_named(-status)}"
    meant = _named(status - 128) if status > 128 else ""
    return f"exited with status {status}" + (f", which is {meant}" if meant else "")


def _named(number: int) -> str:
    try:
        found = signal.Signals(number)
    except (
        ValueError
    ):  # the numbers between SIGRTMIN and SIGRTMAX have no names, and others no signal
        return f"signal {number}" if signal.SIGRTMIN < number < signal.SIGRTMAX else ""
    hint = _HINTS.get(found)
    return f"{found.name} ({hint})" if hint else found.name
