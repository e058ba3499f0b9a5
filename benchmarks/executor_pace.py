"""Does the emulator hold its pace over real gRPC? Frames of one step against coalesced ones.

    python benchmarks/executor_pace.py [--seconds 5] [--json PATH]

Starts an executor process per case and reads its streams through ExecutorLink in this process, as
a gateway would. Cases: one stream at 1 ms/token, and 512 streams at 7.1 ms (72,000 tokens/s), with
`coalesce` 1 and 8. Prints tokens/s, TPOT over streams (median), the inter-token gap's median and
95th percentile as the reader saw it, and CPU per token of both processes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from paretoserve.domain.profile import Coalesce
from paretoserve.domain.replica import Health
from paretoserve.domain.request import Sampling
from paretoserve.executor.contract import GenerationRequest
from paretoserve.executor.link import ExecutorLink

CONTEXT = 1_000_000
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """So many streams, each of which the curve gives a token every `tpot_ms`."""

    streams: int
    tpot_ms: float
    coalesce: Coalesce


CASES = (
    Case(1, 1.0, Coalesce()),
    Case(1, 1.0, Coalesce(max_tokens=8, max_ms=20)),
    Case(512, 7.1, Coalesce()),
    Case(512, 7.1, Coalesce(max_tokens=8, max_ms=100)),
)


@dataclass
class Reader:
    """What one stream's reader saw: when each chunk came and how many tokens it had."""

    arrivals: list[tuple[float, int]] = field(default_factory=list)

    def between(self, begin: float, end: float) -> list[tuple[float, int]]:
        return [arrival for arrival in self.arrivals if begin <= arrival[0] <= end]


@dataclass(frozen=True)
class Figures:
    """One case's result. Gaps are between chunks; a chunk of n tokens is n-fold coalesced."""

    streams: int
    tpot_ms_wanted: float
    coalesce_tokens: int
    tokens_per_s: float
    tokens_per_s_wanted: float
    tpot_ms_median: float
    chunk_gap_ms_p50: float
    chunk_gap_ms_p95: float
    tokens_per_chunk: float
    executor_cpu_us_per_token: float
    reader_cpu_us_per_token: float


def profile_document(case: Case) -> dict[str, Any]:
    return {
        "name": "pace",
        "model": "m",
        "engine": "emulator",
        "gpus": 1,
        "limits": {
            "context_tokens": CONTEXT,
            "max_batch": case.streams,
            "max_queue": 0,
            "admit": case.streams,
        },
        "curve": {
            "source": "emulated",
            "hardware": "a benchmark's wish",
            "points": [{"batch": case.streams, "tpot_ms": case.tpot_ms}],
            "prefill_tokens_per_s": 1e9,
        },
    }


@asynccontextmanager
async def executor(case: Case) -> AsyncIterator[tuple[str, int]]:
    """An executor process; its address and pid."""
    documents: dict[str, Any] = {
        "models.yaml": {"models": [{"name": "m", "path": "m", "context_tokens": CONTEXT}]},
        "policy.yaml": {"version": "1"},
        "tiers/t.yaml": {"name": "t", "ttft_ms": 1, "tpot_ms": 1, "profiles": ["pace"]},
        "tenants/a.yaml": {"name": "a", "key_hashes": ["sha256:" + "0" * 64], "tiers": ["t"]},
        "profiles/pace.yaml": profile_document(case),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, document in documents.items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(yaml.safe_dump(document))
        command = [sys.executable, "-m", "paretoserve.app.executor", "--grace", "0"]
        process = await asyncio.create_subprocess_exec(
            *command, "--deployment", folder, "--profile", "pace", stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            ready = json.loads(await process.stdout.readline())
            yield ready["address"], process.pid
        finally:
            process.terminate()
            await process.wait()


async def measure(case: Case, seconds: float) -> Figures:
    async with executor(case) as (address, pid):
        serving = asyncio.Event()
        link = ExecutorLink(
            address,
            replica_id="r",
            profile="pace",
            gateway_id="bench",
            coalesce=case.coalesce,
            on_state=lambda state: serving.set() if state.health is Health.SERVING else None,
        )
        link.start()
        await serving.wait()
        readers = [Reader() for _ in range(case.streams)]
        tasks = [asyncio.create_task(read(link, n, reader)) for n, reader in enumerate(readers)]
        await asyncio.sleep(1.0)
        begin, cpu = time.perf_counter(), (cpu_s(pid), time.process_time())
        await asyncio.sleep(seconds)
        end, cpu_after = time.perf_counter(), (cpu_s(pid), time.process_time())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await link.close()
    used = (cpu_after[0] - cpu[0], cpu_after[1] - cpu[1])
    return figures(case, [reader.between(begin, end) for reader in readers], end - begin, used)


async def read(link: ExecutorLink, number: int, reader: Reader) -> None:
    sampling = Sampling(max_tokens=CONTEXT - 10, ignore_eos=True, seed=number)
    async for chunk in link.generate(GenerationRequest(f"r{number}", (1, 2, 3), sampling)):
        reader.arrivals.append((time.perf_counter(), len(chunk.token_ids)))


def figures(
    case: Case, streams: list[list[tuple[float, int]]], seconds: float, used: tuple[float, float]
) -> Figures:
    tokens = sum(count for stream in streams for _, count in stream)
    tpots = [
        1000 * (stream[-1][0] - stream[0][0]) / sum(count for _, count in stream[1:])
        for stream in streams
        if len(stream) > 1
    ]
    gaps = [
        1000 * (after[0] - before[0])
        for stream in streams
        for before, after in itertools.pairwise(stream)
    ]
    return Figures(
        streams=case.streams,
        tpot_ms_wanted=case.tpot_ms,
        coalesce_tokens=case.coalesce.max_tokens,
        tokens_per_s=tokens / seconds,
        tokens_per_s_wanted=1000 * case.streams / case.tpot_ms,
        tpot_ms_median=statistics.median(tpots),
        chunk_gap_ms_p50=statistics.median(gaps),
        chunk_gap_ms_p95=statistics.quantiles(gaps, n=20)[-1],
        tokens_per_chunk=tokens / sum(len(stream) for stream in streams),
        executor_cpu_us_per_token=1e6 * used[0] / tokens,
        reader_cpu_us_per_token=1e6 * used[1] / tokens,
    )


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="per case")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    results = []
    for case in CASES:
        results.append(await measure(case, options.seconds))
        print(render(results[-1]))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=2))


def render(result: Figures) -> str:
    return (
        f"{result.streams:4d} streams, coalesce {result.coalesce_tokens}: "
        f"{result.tokens_per_s:8,.0f} of {result.tokens_per_s_wanted:8,.0f} tokens/s, "
        f"TPOT {result.tpot_ms_median:6.3f} ms (wanted {result.tpot_ms_wanted}), "
        f"chunk gap p50 {result.chunk_gap_ms_p50:6.2f} p95 {result.chunk_gap_ms_p95:6.2f} ms, "
        f"{result.tokens_per_chunk:4.1f} tokens/chunk, CPU us/token: executor "
        f"{result.executor_cpu_us_per_token:6.2f}, reader {result.reader_cpu_us_per_token:6.2f}"
    )


if __name__ == "__main__":
    asyncio.run(main())
