"""What an executor knows of the promises made to the requests that it holds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.emulated import MODEL, emulated_profile, request
from tests.unit.executor.test_attachment import HandEngine

from paretoserve.domain.errors import InvalidRequest
from paretoserve.domain.profile import Coalesce
from paretoserve.domain.replica import Health, ReplicaState
from paretoserve.domain.usage import Timing, Usage
from paretoserve.executor import codec
from paretoserve.executor.attachment import Attachment
from paretoserve.executor.contract import Chunk, Finish, FinishReason, GenerationRequest
from paretoserve.executor.engines.emulator import EmulatorEngine
from paretoserve.executor.host import EngineHost
from paretoserve.executor.promises import Promises
from paretoserve.wire._pb import executor_pb2 as pb

PAST = ReplicaState("r", "fast", "", Health.LOST, tightest_tpot_ms=1.0, guests=9)


def promised(name: str, tpot_ms: float = math.inf, *, guest: bool = False) -> GenerationRequest:
    plain = request(name)
    return GenerationRequest(
        name, plain.prompt_token_ids, plain.sampling, tpot_ms=tpot_ms, guest=guest
    )


def ended(name: str) -> Chunk:
    return Chunk(name, (), (), Finish(FinishReason.STOP, Usage(4, 1), Timing(0, 0, 0)))


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 9),
            st.sampled_from((1.0, 2.0, 25.0, math.inf)),
            st.booleans(),
        )
    )
)
def test_the_account_is_that_of_what_is_held(
    events: list[tuple[bool, int, float, bool]],
) -> None:
    promises, held = Promises(), dict[str, tuple[float, bool]]()
    for comes, number, tpot_ms, guest in events:
        name = str(number)
        if comes and name not in held:
            promises.add(promised(name, tpot_ms, guest=guest))
            held[name] = (tpot_ms, guest)
        elif not comes:
            promises.remove(name)
            held.pop(name, None)
        assert promises.tightest_tpot_ms == min((t for t, _ in held.values()), default=math.inf)
        assert promises.guests == sum(guest for _, guest in held.values())
        assert promises.request_ids == list(held)
        assert len(promises) == len(held)
        assert (name in promises) == (name in held)


@pytest.mark.parametrize(
    "sent", [promised("a"), promised("a", 2.5), promised("a", 2.5, guest=True)]
)
def test_a_promise_survives_the_wire(sent: GenerationRequest) -> None:
    data = codec.submit_to_proto(sent).SerializeToString()
    got = codec.request_from_submit(pb.Submit.FromString(data))
    assert (got.tpot_ms, got.guest) == (sent.tpot_ms, sent.guest)


async def test_the_state_tells_every_gateway_what_all_of_them_promised() -> None:
    engine = HandEngine()
    host = EngineHost(engine, "fast")
    await host.start()
    one, other = Attachment(host, Coalesce()), Attachment(host, Coalesce())

    def told() -> tuple[float, int]:
        state = codec.reading(host.state(), PAST)
        return state.tightest_tpot_ms, state.guests

    assert told() == (math.inf, 0), "nothing is left of what was read before"
    one.submit(codec.submit_to_proto(promised("a", 25.0, guest=True)))
    other.submit(codec.submit_to_proto(promised("b", 2.0)))
    other.submit(codec.submit_to_proto(promised("c", guest=True)))
    assert told() == (2.0, 2)
    engine.deliver["b"]([ended("b")])
    assert told() == (25.0, 2)
    engine.deliver["a"]([ended("a")])
    assert told() == (math.inf, 1)
    engine.full = True
    one.submit(codec.submit_to_proto(promised("d", 1.0, guest=True)))
    assert told() == (math.inf, 1), "what was not taken is not held"
    one.close()
    other.close()


@pytest.mark.parametrize("tpot_ms", [0.0, -1.0, math.nan])
async def test_a_promise_that_makes_no_sense_is_refused(tpot_ms: float) -> None:
    host = EngineHost(HandEngine(), "fast")
    await host.start()
    with pytest.raises(InvalidRequest, match="tpot_ms"):
        host.submit(promised("a", tpot_ms), lambda _: None)
    assert host.state().guests == 0


async def test_a_refusal_names_the_parameter() -> None:
    host = EngineHost(EmulatorEngine(emulated_profile(), MODEL), "fast")
    await host.start()
    attachment = Attachment(host, Coalesce())
    attachment.submit(codec.submit_to_proto(request("a", temperature=9.0)))
    frame = await attachment.next_frame()
    assert frame is not None
    error = codec.error_from_delta(frame.deltas[0])
    assert isinstance(error, InvalidRequest)
    assert error.param == "temperature"
    attachment.close()
    await host.stop()
