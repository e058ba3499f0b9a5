"""Sending a workload through the SDK, open loop: by the trace's clock, not by completion.

A request's times count from the moment at which it was due, so that a load generator that falls
behind cannot make the platform look faster than it was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import perf_counter

from paretoserve.app.demo.workload import Job
from paretoserve.domain.targets import Took
from paretoserve.sdk import (
    AsyncClient,
    ClientOptions,
    Completed,
    Decision,
    ParetoserveError,
    Rejected,
    RetryPolicy,
    Started,
    TextDelta,
)

EXPLAINED_REJECTIONS = 3
"""So many rejected requests are asked about again, for the whole decision; it costs a call."""


class Fate(StrEnum):
    """What became of a request."""

    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(slots=True)
class Record:
    """One request of the replay, filled in as it goes. Milliseconds count from when it was due."""

    job: Job
    fate: Fate = Fate.RUNNING
    lag_ms: float = 0.0
    """How late the load generator itself sent it."""
    profile: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft_ms: float | None = None
    total_ms: float = 0.0
    steps: int = 0
    accepted: int = 0
    gpu_seconds: float = 0.0
    decision: Decision | None = None
    explained_after: bool = False
    """The decision is not the request's own but what `explain` said right after its rejection."""
    reason: str = ""

    @property
    def took(self) -> Took | None:
        """Of a whole answer; None without one."""
        if self.fate is not Fate.DONE or self.ttft_ms is None:
            return None
        return Took.answer(self.ttft_ms, self.total_ms, self.completion_tokens)

    @property
    def tpot_ms(self) -> float | None:
        """Time per output token after the first; None for a single token."""
        return self.took.tpot_ms if self.took is not None else None


OnChange = Callable[[Record, int], None]
"""Receives a record whenever it has changed, and how many tokens came with the change."""


class Replay:
    """Sends `jobs` to the gateway at `address`; every tenant has its own connection and key."""

    def __init__(
        self, address: str, model: str, jobs: Sequence[Job], on_change: OnChange, grace_s: float
    ) -> None:
        self._address = address
        self._model = model
        self._jobs = jobs
        self._on_change = on_change
        self._grace_s = grace_s
        self._began = 0.0
        self._explained = 0

    async def run(self) -> tuple[Record, ...]:
        """Returns when every request has ended, or `grace_s` after the last was sent.

        What still runs then is cancelled and counts as failed.
        """
        async with contextlib.AsyncExitStack() as stack:
            clients = {
                key: await stack.enter_async_context(self._client(key))
                for key in {job.client.key for job in self._jobs}
            }
            records = [Record(job) for job in self._jobs]
            tasks = await self._send_all(records, clients)
            _, late = await asyncio.wait(tasks, timeout=self._grace_s)
            for task in late:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(
                outcome, asyncio.CancelledError
            ):
                raise outcome
        return tuple(records)

    def _client(self, key: str) -> AsyncClient:
        options = ClientOptions(retry=RetryPolicy(attempts=1), timeout_s=120.0)
        return AsyncClient(self._address, api_key=key, options=options)

    async def _send_all(
        self, records: Sequence[Record], clients: Mapping[str, AsyncClient]
    ) -> list[asyncio.Task[None]]:
        tasks = []
        self._began = perf_counter()
        for record in records:
            await asyncio.sleep(self._began + record.job.at_s - perf_counter())
            tasks.append(asyncio.create_task(self._send(clients[record.job.client.key], record)))
        return tasks

    async def _send(self, client: AsyncClient, record: Record) -> None:
        """One request from beginning to end; its outcome is in the record, nothing is raised."""
        record.lag_ms = self._since_due(record)
        self._on_change(record, 0)
        try:
            await self._stream(client, record)
            record.fate = Fate.DONE
        except Rejected as error:
            record.fate, record.reason = Fate.REJECTED, f"{error.reason}: {error.message}"
            await self._explain(client, record)
        except ParetoserveError as error:
            record.fate, record.reason = Fate.FAILED, f"{error.reason}: {error.message}"
        except asyncio.CancelledError:
            record.fate, record.reason = Fate.FAILED, "unfinished when the replay ended"
            raise
        finally:
            self._on_change(record, 0)

    async def _stream(self, client: AsyncClient, record: Record) -> None:
        job = record.job
        async with client.stream(
            job.prompt,
            model=self._model,
            tier=job.client.tier,
            max_tokens=job.max_tokens,
            temperature=0.0,
            ignore_eos=True,
            include_decision=True,
            request_id=f"{job.client.tier}-{job.number}",
        ) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    self._take_delta(record, event)
                elif isinstance(event, Started):
                    record.profile, record.decision = event.profile, event.decision
                    record.prompt_tokens = event.prompt_tokens
                else:
                    self._take_end(record, event)

    def _take_delta(self, record: Record, delta: TextDelta) -> None:
        if record.ttft_ms is None and delta.token_ids:
            record.ttft_ms = self._since_due(record)
        record.total_ms = self._since_due(record)
        record.completion_tokens += len(delta.token_ids)
        self._on_change(record, len(delta.token_ids))

    @staticmethod
    def _take_end(record: Record, end: Completed) -> None:
        record.completion_tokens = end.usage.completion_tokens
        record.steps, record.accepted = end.acceptance.steps, end.acceptance.accepted
        record.gpu_seconds = end.gpu_seconds

    async def _explain(self, client: AsyncClient, record: Record) -> None:
        if self._explained >= EXPLAINED_REJECTIONS:
            return
        self._explained += 1
        job = record.job
        with contextlib.suppress(ParetoserveError):  # the explanation is an extra
            record.decision = await client.explain(
                job.prompt,
                model=self._model,
                tier=job.client.tier,
                max_tokens=job.max_tokens,
                request_id=f"{job.client.tier}-{job.number}-again",
            )
            record.explained_after = True

    def _since_due(self, record: Record) -> float:
        return 1000 * (perf_counter() - self._began - record.job.at_s)
