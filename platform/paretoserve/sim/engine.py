"""One replica's engine, modelled: the emulator's batching without walking its steps one by one.

The model is that of `executor/engines/emulator/batch.py`. Between two events (a prompt is
prefilled, a sequence ends, one joins or is aborted) all steps are alike but for the KV cache, which
grows by the same tokens in each, so that a run of them is summed in closed form. A sequence's last
step is known when it begins to decode: a heap of step numbers tells which ends next. The cost is
O(log n) per event, whatever the lengths and the batch.

What differs from the emulator: a sequence with a fractional acceptance length makes tokens at its
mean, evenly, where the emulator rounds at random.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator

from paretoserve.domain.errors import ContextTooLong, InvalidRequest, QueueFull
from paretoserve.domain.profile import Profile
from paretoserve.domain.replica import Share
from paretoserve.executor.engines.emulator.prefixes import PrefixCache
from paretoserve.latency.curve import tpot_ms
from paretoserve.sim.sequence import Event, Job, Load, Sequence
from paretoserve.sim.steps import Steps
from paretoserve.sim.traces import PREFIX_BLOCK_TOKENS


class ModelledEngine:
    """Sequences on one replica. Times are seconds and never go back.

    Drive it so: call `advance` at `due`, and before anything else at a time past it. A joining or
    aborted sequence takes effect when the step that is under way ends.
    """

    def __init__(self, profile: Profile, *, owners: int = 1, slowdown: float = 1.0) -> None:
        """`slowdown` is how much slower than its curve it really is.

        `engine_args` may give `kv_tokens` (else a full context for each sequence fits) and
        `prefix_cache`, as they do for the emulator.
        """
        limits, arguments = profile.limits, profile.engine_args
        self._limits, self._curve, self._slowdown = limits, profile.curve, slowdown
        self.kv_total = int(arguments.get("kv_tokens") or limits.max_batch * limits.context_tokens)
        self._caching = bool(arguments.get("prefix_cache"))
        self._paces: dict[int, float] = {}
        self.owners = owners
        self.fail(0.0)

    def __len__(self) -> int:
        """Sequences that have not ended, waiting ones included."""
        return len(self._known)

    @property
    def due(self) -> float:
        """When `advance` must be called next; infinity for an engine that has nothing to do."""
        if self._steps is not None:
            return self._steps.end
        return self._at if self._known else math.inf

    def submit(self, job: Job, now: float) -> None:
        """Queue a job. Raises InvalidRequest for an id in flight, ContextTooLong, QueueFull."""
        if job.request_id in self._known:
            raise InvalidRequest(f"request id {job.request_id!r} is in flight already")
        sequence = Sequence(job, self._curve.acceptance_length)
        most = min(self._limits.context_tokens, self.kv_total)
        if sequence.reserved_tokens > most:
            raise ContextTooLong(
                f"prompt and max_tokens need {sequence.reserved_tokens} tokens; {most} fit"
            )
        if len(self._known) >= self._limits.max_batch + self._limits.max_queue:
            raise QueueFull(f"{self._all.waiting} requests wait already")
        if not self._known:
            self._at = now
        self._known[job.request_id] = sequence
        self._arrivals += 1
        heapq.heappush(self._queue, (-job.priority, self._arrivals, sequence))
        for load in self._loads(sequence):
            load.queue(sequence)
        if self._next_fits():
            self._interrupt(now)

    def abort(self, request_id: str, now: float) -> int:
        """End a sequence with the present step; returns the tokens it has had. 0 if unknown."""
        sequence = self._known.get(request_id)
        if sequence is None or sequence.aborted:
            return 0
        self._interrupt(now)
        sequence.aborted = True
        self._aborting.append(sequence)
        return sequence.produced(self._step_at(now))

    def advance(self, now: float) -> list[Event]:
        """Play what has ended by `now`: first and last tokens, in order."""
        events: list[Event] = []
        if self._steps is None:
            self._plan()
        while (steps := self._steps) is not None and steps.end <= now:
            self._complete(steps, events)
            if self._at == now and events:
                break  # what the events lead to at this very time joins before the next step
            self._plan()
        return events

    def produced(self, request_id: str, now: float) -> int:
        """Tokens that a sequence has had by `now`; 0 for one that is unknown or has ended."""
        sequence = self._known.get(request_id)
        return sequence.produced(self._step_at(now)) if sequence else 0

    def progress(self, now: float) -> list[tuple[str, int]]:
        """The tokens that each sequence has had by `now`, of those that have had any."""
        step = self._step_at(now)
        return [
            (request_id, sequence.produced(step))
            for request_id, sequence in self._known.items()
            if sequence.step >= 0
        ]

    def stepped_at(self, now: float) -> float:
        """When the last step that is done by `now` ended: the time of what `progress` tells."""
        steps = self._steps
        return steps.end_of(steps.done_by(now)) if steps is not None else min(self._at, now)

    def load(self, now: float, owner: int | None = None) -> Share:
        """What it holds at `now`, of one router's or, without an owner, of all."""
        load, steps = self._all if owner is None else self._by_owner[owner], self._steps
        done, prefilled = 0, 0
        if steps is not None:
            done = steps.done_by(now)
            if self._prefilling and owner in (None, self._prefilling[0].job.owner):
                prefilled = done * steps.prompt_tokens
        return load.share(self._step + done, prefilled)

    def step_ms(self, now: float) -> float:
        """How long the step that is under way lasts; 0 for an engine without work."""
        steps = self._steps
        return 1000 * (steps.first + steps.slope * steps.done_by(now)) if steps else 0.0

    @property
    def acceptance_length(self) -> float:
        """Tokens per sequence and step of those that decode; 1 when none does."""
        return self._all.growth / self._all.decoding if self._all.decoding else 1.0

    def slow(self, slowdown: float, now: float) -> None:
        """Be so much slower than the curve from the next step on."""
        self._interrupt(now)
        self._slowdown = slowdown

    def fail(self, now: float) -> None:
        """Lose every sequence and the prefix cache; it is then as new."""
        blocks = self.kv_total // PREFIX_BLOCK_TOKENS if self._caching else 0
        self._prefixes = PrefixCache(blocks)
        self._known: dict[str, Sequence] = {}
        self._queue: list[tuple[int, int, Sequence]] = []
        self._prefilling: deque[Sequence] = deque()
        self._ends: list[tuple[int, int, Sequence]] = []
        self._aborting: list[Sequence] = []
        self._takes: list[tuple[Sequence, int]] = []
        self._all = Load()
        # Of a single owner it is all, and need not be counted twice.
        self._by_owner = [Load() for _ in range(self.owners)] if self.owners > 1 else [self._all]
        self._reserved = self._arrivals = self._step = 0
        self._steps: Steps | None = None
        self._at = now

    def _loads(self, sequence: Sequence) -> tuple[Load, ...]:
        return (self._all, self._by_owner[sequence.job.owner]) if self.owners > 1 else (self._all,)

    def _step_at(self, now: float) -> int:
        return self._step + (self._steps.done_by(now) if self._steps else 0)

    def _interrupt(self, now: float) -> None:
        """End the run of steps with the present one, so that the batch can change."""
        if self._steps is not None:
            self._steps.stop(now)
            if self._steps.count == 0:
                self._steps = None

    def _next_fits(self) -> bool:
        """Whether the first in the queue, if any, can be admitted."""
        while self._queue and self._queue[0][2].aborted:
            heapq.heappop(self._queue)
        if not self._queue or self._all.running >= self._limits.max_batch:
            return False
        return self._reserved + self._queue[0][2].reserved_tokens <= self.kv_total

    def _plan(self) -> None:
        """Admit what fits and begin the run of steps that follows."""
        while self._next_fits():
            self._admit(heapq.heappop(self._queue)[2])
        if self._all.running == 0:
            self._end_aborted()
            return
        count = self._ends[0][0] - self._step if self._ends else 2**31
        prompt_tokens, overhead_ms = 0, 0.0
        if self._prefilling:
            prompt_tokens, overhead_ms, most = self._take()
            count = min(count, most)
        if self._aborting:
            count = 1
        first, slope = self._pace(prompt_tokens)
        first += overhead_ms / 1000 * self._slowdown
        self._steps = Steps(self._at, first, slope, count, prompt_tokens)

    def _admit(self, sequence: Sequence) -> None:
        sequence.admitted = True
        known = PREFIX_BLOCK_TOKENS * self._prefixes.lookup(sequence.job.blocks)
        sequence.cached = min(known, sequence.job.prompt_tokens - 1)
        sequence.prompt_left -= sequence.cached
        self._reserved += sequence.reserved_tokens
        self._queue_prompt(sequence)
        for load in self._loads(sequence):
            load.admit(sequence)

    def _queue_prompt(self, sequence: Sequence) -> None:
        """Behind the prompts that are begun, and before those of less priority that are not."""
        queue, priority = self._prefilling, sequence.job.priority
        at = len(queue)
        while at and not queue[at - 1].begun and queue[at - 1].job.priority < priority:
            at -= 1
        queue.insert(at, sequence)

    def _take(self) -> tuple[int, float, int]:
        """Which prompts the next steps prefill: tokens per step, ms for those begun, how many steps.

        As long as the first prompt fills the chunk, steps are alike; else there is just one such.
        """
        room, head = self._curve.chunk_tokens, self._prefilling[0]
        if head.prompt_left >= room and not self._begins(head):
            self._takes = [(head, room)]
            return room, 0.0, head.prompt_left // room
        self._takes, overhead_ms = [], 0.0
        for sequence in self._prefilling:
            take = min(room, sequence.prompt_left)
            if take == 0:
                break
            overhead_ms += self._curve.prefill_ms if self._begins(sequence) else 0.0
            self._takes.append((sequence, take))
            room -= take
        return self._curve.chunk_tokens - room, overhead_ms, 1

    def _begins(self, sequence: Sequence) -> bool:
        """Whether its next chunk is the first, if that costs anything."""
        return self._curve.prefill_ms > 0 and not sequence.begun

    def _pace(self, prompt_tokens: int) -> tuple[float, float]:
        """Seconds of the next step, and by how much each further one is longer."""
        first, slope, load, curve = 0.0, 0.0, self._all, self._curve
        if load.decoding:
            kv_ms = curve.kv_ms_per_1k_tokens / 1000 * curve.acceptance_length
            held = load.kv_tokens(self._step) + prompt_tokens
            first = self._idle_pace(load.decoding) + kv_ms * held
            slope = kv_ms * (prompt_tokens + load.growth)
        first = first / 1000 + prompt_tokens / curve.prefill_tokens_per_s
        return first * self._slowdown, slope / 1000 * self._slowdown

    def _idle_pace(self, batch: int) -> float:
        """Milliseconds of a step of that batch with an empty KV cache."""
        pace = self._paces.get(batch)
        if pace is None:
            pace = tpot_ms(self._curve, batch) * self._curve.acceptance_length
            self._paces[batch] = pace
        return pace

    def _complete(self, steps: Steps, events: list[Event]) -> None:
        """The run of steps is over: give it its effect."""
        self._at, self._steps, done = steps.end, None, steps.count
        self._step += done
        for sequence, tokens in self._takes:
            sequence.prompt_left -= done * tokens
            for load in self._loads(sequence):
                load.prefill(done * tokens)
        self._takes = []
        self._end_aborted()
        events.extend(self._end_prefill())
        events.extend(self._end_decode())

    def _end_aborted(self) -> None:
        aborting, self._aborting = self._aborting, []
        for sequence in aborting:
            if sequence.admitted and sequence.step < 0:
                self._prefilling.remove(sequence)
            self._release(sequence)

    def _end_prefill(self) -> Iterator[Event]:
        while self._prefilling and self._prefilling[0].prompt_left == 0:
            sequence = self._prefilling.popleft()
            job = sequence.job
            sequence.begin(self._step)
            self._prefixes.remember(job.blocks)
            for load in self._loads(sequence):
                load.begin(sequence)
            yield Event(self._at, job.request_id, False, 0, sequence.cached)
            if sequence.last_step == self._step:
                yield self._ended(sequence)
            else:
                self._arrivals += 1
                heapq.heappush(self._ends, (sequence.last_step, self._arrivals, sequence))

    def _end_decode(self) -> Iterator[Event]:
        while self._ends and self._ends[0][0] <= self._step:
            sequence = heapq.heappop(self._ends)[2]
            if not sequence.aborted:
                yield self._ended(sequence)

    def _ended(self, sequence: Sequence) -> Event:
        self._release(sequence)
        steps = sequence.last_step - sequence.step
        return Event(self._at, sequence.job.request_id, True, steps, sequence.cached)

    def _release(self, sequence: Sequence) -> None:
        del self._known[sequence.job.request_id]
        if sequence.admitted:
            self._reserved -= sequence.reserved_tokens
        for load in self._loads(sequence):
            load.release(sequence)
