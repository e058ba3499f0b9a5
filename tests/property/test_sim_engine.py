"""The modelled engine gives every request the times that the emulator's batch gives it."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.emulated import emulated_profile, request

from paretoserve.domain.errors import QueueFull
from paretoserve.domain.profile import Profile
from paretoserve.executor.engines.emulator.arguments import EmulatorArgs
from paretoserve.executor.engines.emulator.batch import Batch
from paretoserve.sim.engine import ModelledEngine
from paretoserve.sim.sequence import Event, Job


class Wish(NamedTuple):
    """A request: when (microseconds), how long, and when it is given up, if ever."""

    at_us: int
    prompt: int
    output: int
    spare: int
    priority: int
    patience_us: int | None


class Reading(NamedTuple):
    """What an engine holds: prompt tokens still to come and KV tokens are one figure, because the
    emulator counts a step's prompt tokens when it begins and the model when it ends."""

    running: int
    waiting: int
    tokens: int


class Times(NamedTuple):
    """Seconds; `before` is what the engine held when the request came."""

    before: Reading | None = None
    first: float | None = None
    last: float | None = None
    tokens_at_abort: int | None = None
    refused: bool = False


Script = list[tuple[float, int, Wish | None]]
"""(seconds, number of the request, the wish or None where it is given up), in order."""


def script_of(wishes: list[Wish]) -> Script:
    # Odd fractions keep them off the ends of steps, where the order would be a matter of taste.
    script: Script = []
    for number, wish in enumerate(wishes):
        at = (wish.at_us + 0.4142135 + 0.0001 * number) / 1e6
        script.append((at, number, wish))
        if wish.patience_us is not None:
            script.append((at + (wish.patience_us + 0.3178) / 1e6, number, None))
    return sorted(script, key=lambda entry: entry[0])


class Emulated:
    """The emulator's batch, played step by step."""

    def __init__(self, profile: Profile) -> None:
        self.batch = Batch(profile, EmulatorArgs.model_validate(profile.engine_args), 1000)
        self.made: dict[str, int] = {}
        self.times: dict[str, Times] = {}

    def play(self, script: Script) -> dict[str, Times]:
        now, position = 0.0, 0
        while position < len(script) or self.batch:
            if not self.batch:
                now = script[position][0]
                self._act(script[position])
                position += 1
            end = now + self.batch.begin(now)
            while position < len(script) and script[position][0] < end:
                self._act(script[position])
                position += 1
            now = end
            for sequence, chunk in self.batch.end(now):
                self._note(chunk.request_id, len(chunk.token_ids), sequence.aborted, now)
                if chunk.finish and not sequence.aborted:
                    self.times[chunk.request_id] = self.times[chunk.request_id]._replace(last=now)
        return self.times

    def _act(self, entry: tuple[float, int, Wish | None]) -> None:
        at, number, wish = entry
        name = f"r{number}"
        if wish is None:
            self.batch.abort(name)
            if self.times[name].last is None and not self.times[name].refused:
                given_up = self.times[name]._replace(tokens_at_abort=self.made[name])
                self.times[name] = given_up
            return
        stats = self.batch.stats()
        held = stats.kv_used_tokens + stats.waiting_tokens
        self.times[name] = Times(Reading(stats.running, stats.waiting, held))
        self.made[name] = 0
        # Tokens of the prompt differ, so that no two sequences share one.
        asked = request(
            name, prompt=(number,) * wish.prompt, max_tokens=wish.output + wish.spare,
            priority=wish.priority, stop_token_ids=(),
        )  # fmt: skip
        try:
            self.batch.add(asked, lambda chunks: None, at)
        except QueueFull:
            self.times[name] = self.times[name]._replace(refused=True)
        else:
            self.batch._known[name].last_index = wish.output

    def _note(self, name: str, tokens: int, aborted: bool, now: float) -> None:
        if tokens and not aborted:
            if self.made[name] == 0:
                self.times[name] = self.times[name]._replace(first=now)
            self.made[name] += tokens


class Modelled:
    """The modelled engine, driven by its own events."""

    def __init__(self, profile: Profile) -> None:
        self.engine = ModelledEngine(profile)
        self.times: dict[str, Times] = {}

    def play(self, script: Script) -> dict[str, Times]:
        for at, number, wish in script:
            while self.engine.due <= at:
                self._note(self.engine.advance(self.engine.due))
            self._act(at, f"r{number}", wish)
        while self.engine:
            self._note(self.engine.advance(self.engine.due))
        return self.times

    def _act(self, at: float, name: str, wish: Wish | None) -> None:
        if wish is None:
            tokens = self.engine.abort(name, at)
            if self.times[name].last is None and not self.times[name].refused:
                self.times[name] = self.times[name]._replace(tokens_at_abort=tokens)
            return
        load = self.engine.load(at)
        held = load.kv_tokens + load.waiting_tokens
        self.times[name] = Times(Reading(load.running, load.waiting, held))
        try:
            job = Job(name, wish.prompt, wish.output, wish.output + wish.spare, wish.priority)
            self.engine.submit(job, at)
        except QueueFull:
            self.times[name] = self.times[name]._replace(refused=True)

    def _note(self, events: list[Event]) -> None:
        for at, name, ended, *_ in events:
            self.times[name] = (
                self.times[name]._replace(last=at) if ended else self.times[name]._replace(first=at)
            )


wishes = st.lists(
    st.builds(
        Wish,
        at_us=st.integers(0, 30_000),
        prompt=st.integers(1, 90),
        output=st.integers(1, 40),
        spare=st.integers(0, 30),
        priority=st.integers(0, 2),
        patience_us=st.none() | st.integers(0, 40_000),
    ),
    max_size=14,
)
profiles = st.builds(
    emulated_profile,
    max_batch=st.integers(1, 5),
    max_queue=st.integers(1, 12),
    tpot_ms=st.sampled_from([0.5, 1.0]),
    engine_args=st.sampled_from([{}, {"kv_tokens": 170}, {"kv_tokens": 260}]),
    acceptance_length=st.sampled_from([1.0, 2.0, 3.0]),
    kv_ms_per_1k_tokens=st.sampled_from([0.0, 0.7, 9.0]),
    prefill_tokens_per_s=st.sampled_from([20_000.0, 1e6]),
    prefill_ms=st.sampled_from([0.0, 0.3]),
    chunk_tokens=st.sampled_from([7, 16, 512]),
)


def same(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return ours == pytest.approx(theirs, rel=1e-6)


@settings(max_examples=400)
@given(wishes, profiles)
def test_it_keeps_the_emulators_times(wishes: list[Wish], profile: Profile) -> None:
    script = script_of(wishes)
    emulated, modelled = Emulated(profile).play(script), Modelled(profile).play(script)
    assert modelled.keys() == emulated.keys()
    for name, theirs in emulated.items():
        ours = modelled[name]
        assert same(ours.first, theirs.first), (name, ours, theirs)
        assert same(ours.last, theirs.last), (name, ours, theirs)
        assert ours._replace(first=None, last=None) == theirs._replace(first=None, last=None)


@given(wishes, profiles)
def test_it_gives_everything_back(wishes: list[Wish], profile: Profile) -> None:
    player = Modelled(profile)
    player.play(script_of(wishes))
    assert player.engine.load(1e9) == (0, 0, 0, 0)
    assert (player.engine.due, len(player.engine)) == (math.inf, 0)
