"""What holds of every retry: never after delivery, never past the deadline, never more than asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paretoserve.domain.errors import (
    DeadlineExceeded,
    EngineError,
    InvalidRequest,
    ParetoserveError,
    QuotaExceeded,
    ReplicaLost,
    Saturated,
    Unavailable,
)
from paretoserve.sdk._retry import Failure, RetryPolicy, Wait, advance, retry_flow

seconds = st.floats(0, 100, allow_nan=False)
errors = st.one_of(
    st.builds(Unavailable, st.just("x"), retry_after_s=st.none() | seconds),
    st.builds(Saturated, st.just("x"), retry_after_s=st.none() | seconds),
    st.builds(QuotaExceeded, st.just("x"), retry_after_s=st.none() | seconds),
    st.builds(ReplicaLost, st.just("x"), delivered=st.integers(0, 2)),
    st.sampled_from([InvalidRequest("x"), EngineError("x"), DeadlineExceeded("x")]),
)
policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 12),
    base_s=seconds,
    cap_s=seconds,
    longest_wait_s=seconds,
)


@given(
    policy=policies,
    timeout_s=st.none() | st.floats(0.001, 200),
    failures=st.lists(st.builds(Failure, errors, delivered=st.booleans()), max_size=14),
    data=st.data(),
)
def test_no_retry_outlives_its_deadline_or_follows_delivery(
    policy: RetryPolicy, timeout_s: float | None, failures: list[Failure], data: st.DataObject
) -> None:
    now, slept, attempts = 0.0, 0.0, 0
    last: Failure | None = None
    raised: ParetoserveError | None = None
    flow = retry_flow(
        policy,
        timeout_s,
        clock=lambda: now,
        draw=lambda: data.draw(st.floats(0, 1, exclude_max=True)),
    )
    step = next(flow)
    pending = iter(failures)
    try:
        while step is not None:
            if isinstance(step, Wait):
                assert last is not None
                asked = last.error.retry_after_s or 0
                assert asked <= step.seconds <= asked + policy.cap_s
                now += step.seconds
                slept += step.seconds
                step = advance(flow)
                continue
            attempts += 1
            assert last is None or not last.delivered
            assert timeout_s is None or step.timeout_s is not None
            assert step.timeout_s is None or (0 < step.timeout_s <= (timeout_s or 0) - now + 1e-6)
            now += data.draw(st.floats(0, 50))
            last = next(pending, None)
            step = advance(flow, last)
    except ParetoserveError as error:
        raised = error
    assert raised is None or (last is not None and raised is last.error)
    assert attempts <= policy.attempts
    assert timeout_s is None or slept < timeout_s
