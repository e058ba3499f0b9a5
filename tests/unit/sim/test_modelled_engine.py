"""What the modelled engine adds to the emulator's batch; that they agree is a property test."""

from __future__ import annotations

import math

import pytest
from tests.support.emulated import emulated_profile, request

from paretoserve.domain.errors import ContextTooLong, InvalidRequest, QueueFull
from paretoserve.domain.profile import Profile
from paretoserve.executor.engines.emulator.arguments import EmulatorArgs
from paretoserve.executor.engines.emulator.batch import Batch
from paretoserve.sim.engine import ModelledEngine
from paretoserve.sim.sequence import Event, Job


def play(engine: ModelledEngine, until: float = math.inf) -> list[Event]:
    events: list[Event] = []
    while engine.due <= until and engine:
        events += engine.advance(engine.due)
    return events


def ends(events: list[Event]) -> dict[str, float]:
    return {event.request_id: event.at for event in events if event.ended}


def job(name: str = "r", prompt: int = 4, output: int = 8, **more) -> Job:
    return Job(name, prompt, output, more.pop("max_tokens", output), **more)


def one_per_ms(**profile) -> Profile:
    """A token a millisecond whatever the batch; a prompt takes next to no time."""
    return emulated_profile(
        **{"tpot_ms": 1.0, "max_batch": 1, "prefill_tokens_per_s": 1e12, **profile}
    )


def test_progress_is_known_at_any_time() -> None:
    engine = ModelledEngine(one_per_ms())
    engine.submit(job(output=10), 0.0)
    assert engine.produced("r", 0.0) == 0
    play(engine, 0.0005)
    assert [engine.produced("r", ms / 1000 + 1e-6) for ms in (0, 1, 5, 8)] == [1, 2, 6, 9]
    assert dict(engine.progress(0.0051)) == {"r": 6}
    assert engine.produced("someone else", 0.0) == 0
    assert engine.stepped_at(0.0057) == pytest.approx(0.005)


def test_a_slower_engine_takes_so_much_longer() -> None:
    usual, slow = (ModelledEngine(one_per_ms(), slowdown=factor) for factor in (1.0, 2.5))
    for engine in (usual, slow):
        engine.submit(job(output=101), 0.0)
    assert ends(play(slow))["r"] == pytest.approx(2.5 * ends(play(usual))["r"])


def test_it_slows_down_with_the_next_step() -> None:
    engine = ModelledEngine(one_per_ms())
    engine.submit(job(output=11), 0.0)
    play(engine, 0.0045)
    engine.slow(3.0, 0.0045)
    assert ends(play(engine))["r"] == pytest.approx(0.005 + 5 * 0.003)


def test_an_abort_at_a_boundary_takes_the_step_that_begins_there() -> None:
    engine = ModelledEngine(one_per_ms(max_batch=2))
    engine.submit(job("a", output=3), 0.0)
    engine.submit(job("b", output=100), 0.0)
    events: list[Event] = []
    while "a" not in ends(events):
        events += engine.advance(engine.due)
    now = ends(events)["a"]
    assert engine.abort("b", now) == 3
    assert engine.load(now).running == 1
    engine.advance(now)
    assert engine.due == pytest.approx(now + 0.001)
    assert engine.advance(engine.due) == []
    assert (len(engine), engine.due) == (0, math.inf)


def test_a_failed_engine_has_lost_everything_and_can_begin_again() -> None:
    engine = ModelledEngine(one_per_ms())
    for name in ("running", "waiting"):
        engine.submit(job(name, output=50), 0.0)
    play(engine, 0.01)
    engine.fail(0.01)
    assert (len(engine), engine.due, engine.load(0.01)) == (0, math.inf, (0, 0, 0, 0))
    engine.submit(job("after", output=5), 1.0)
    assert ends(play(engine)) == {"after": pytest.approx(1.004)}


@pytest.mark.parametrize(("factor", "speed"), [(1.0, 2.6), (0.5, 1.3), (0.1, 1.0)])
def test_a_sequence_has_its_own_acceptance(factor: float, speed: float) -> None:
    engine = ModelledEngine(one_per_ms(acceptance_length=2.6))
    engine.submit(job(output=1001, acceptance=factor), 0.0)
    (first, last) = play(engine)
    assert last.steps == math.ceil(1000 / speed)
    assert last.at - first.at == pytest.approx(2.6e-3 * last.steps)


def test_without_speculation_nothing_can_be_accepted() -> None:
    engine = ModelledEngine(one_per_ms())
    engine.submit(job(output=11, acceptance=3.0), 0.0)
    assert play(engine)[-1].steps == 10


def test_fractional_acceptance_is_the_emulators_on_average() -> None:
    profile = one_per_ms(acceptance_length=2.7, max_batch=50, kv_ms_per_1k_tokens=1.0)
    engine, batch = ModelledEngine(profile), Batch(profile, EmulatorArgs(), 1000)
    for number in range(50):
        output = 200 + 17 * number
        engine.submit(job(f"r{number}", output=output), 0.0)
        batch.add(request(f"r{number}", prompt=(number,) * 4, max_tokens=output), print, 0.0)
    emulated: dict[str, float] = {}
    now = 0.0
    while batch:
        now += batch.begin(now)
        emulated.update({c.request_id: now for _, c in batch.end(now) if c.finish})
    modelled = ends(play(engine))
    for name, end in emulated.items():
        assert modelled[name] == pytest.approx(end, rel=0.1)
    assert sum(modelled.values()) == pytest.approx(sum(emulated.values()), rel=0.01)


def test_admitted_prompts_are_prefilled_by_priority_once_the_one_that_is_begun_is_done() -> None:
    engine = ModelledEngine(
        emulated_profile(max_batch=8, prefill_tokens_per_s=1000.0, chunk_tokens=10)
    )
    for name, priority in (("a", 1), ("b", 1), ("c", 9), ("d", 5), ("e", 9)):
        at = 0.0 if name == "a" else 0.001
        engine.submit(job(name, prompt=40, output=1, priority=priority), at)
        engine.advance(at)
    order = [event.request_id for event in play(engine) if not event.ended]
    assert order == ["a", "c", "e", "d", "b"]


def test_a_known_prefix_is_not_prefilled_again_and_the_least_used_makes_room() -> None:
    profile = emulated_profile(
        prefill_tokens_per_s=1000.0, engine_args={"prefix_cache": True, "kv_tokens": 4 * 512}
    )
    engine = ModelledEngine(profile)
    cached = []
    for name, blocks in (
        ("cold", (1, 2)), ("warm", (1, 2)), ("longer", (1, 2, 3)), ("other", (7, 8)), ("again", (7, 8)), ("gone", (1, 2)),
    ):  # fmt: skip
        engine.submit(
            job(name, prompt=512 * len(blocks), output=1, blocks=blocks), 10 * len(cached)
        )
        cached.append(play(engine)[-1].cached_tokens)
    assert cached == [0, 1023, 1024, 0, 1023, 0]


def test_each_router_is_told_its_own_share() -> None:
    engine = ModelledEngine(one_per_ms(max_batch=2), owners=2)
    for name, owner in (("a", 0), ("b", 1), ("c", 1)):
        engine.submit(job(name, prompt=10, output=20, owner=owner), 0.0)
    play(engine, 0.0035)
    now = 0.0035
    assert engine.load(now, 0) == (1, 0, 0, 14)
    assert engine.load(now, 1) == (1, 1, 10, 14)
    assert engine.load(now) == (2, 1, 10, 28)


def test_prompts_are_counted_off_as_their_chunks_are_done() -> None:
    engine = ModelledEngine(emulated_profile(prefill_tokens_per_s=1000.0, chunk_tokens=10))
    engine.submit(job(prompt=100), 0.0)
    engine.advance(0.0)
    assert [engine.load(at).waiting_tokens for at in (0.0, 0.0105, 0.0305, 0.095)] == [
        100,
        90,
        70,
        10,
    ]


def test_refusals_are_the_emulators() -> None:
    engine = ModelledEngine(emulated_profile(max_batch=1, max_queue=1, context_tokens=50))
    with pytest.raises(ContextTooLong, match="need 54 tokens; 50 fit"):
        engine.submit(job(output=50), 0.0)
    engine.submit(job("a"), 0.0)
    with pytest.raises(InvalidRequest, match="'a' is in flight"):
        engine.submit(job("a"), 0.0)
    engine.submit(job("b"), 0.0)
    with pytest.raises(QueueFull):
        engine.submit(job("c"), 0.0)
