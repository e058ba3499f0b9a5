"""The bound of the Virtual Token Counter, and its order, whatever is charged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paretoserve.ledger.fairness import VirtualTime

COSTS = st.integers(1, 80).map(lambda eighths: eighths / 8)
TENANTS = ("a", "b", "c")


@given(
    weights=st.tuples(*(st.sampled_from([0.5, 1.0, 2.0, 4.0]) for _ in TENANTS)),
    costs=st.lists(st.tuples(COSTS, COSTS), min_size=1, max_size=80),
)
def test_tenants_that_wait_all_along_stay_within_one_request_of_each_other(
    weights: tuple[float, ...], costs: list[tuple[float, float]]
) -> None:
    """Each request is charged as estimated and corrected before the tenant's next one."""
    time, weight = VirtualTime(), dict(zip(TENANTS, weights, strict=True))
    for tenant in TENANTS:
        time.join("t", tenant)
    service = dict.fromkeys(TENANTS, 0.0)
    for estimate, cost in costs:
        tenant = time.least("t")
        assert tenant is not None
        time.charge("t", tenant, estimate, weight[tenant])
        time.charge("t", tenant, cost - estimate, weight[tenant])
        service[tenant] += cost
    shares = {tenant: service[tenant] / weight[tenant] for tenant in TENANTS}
    largest = max(cost for _, cost in costs) / min(weights)
    assert max(shares.values()) - min(shares.values()) <= largest
    assert {tenant: time.of("t", tenant) for tenant in TENANTS} == shares


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "leave", "charge"]),
        st.sampled_from("abcdef"),
        st.integers(-16, 80).map(lambda eighths: eighths / 8),
    ),
    max_size=200,
)


@given(STEPS)
def test_the_order_is_that_of_a_plain_minimum(steps: list[tuple[str, str, float]]) -> None:
    """The paper's rule over dictionaries."""
    time, counter, waiting, last = VirtualTime(), dict.fromkeys("abcdef", 0.0), set[str](), ""
    for action, tenant, amount in steps:
        floor = min((counter[name] for name in waiting), default=counter.get(last, 0.0))
        if tenant not in waiting and action != "leave":
            counter[tenant] = max(counter[tenant], floor)
        if action == "join":
            time.join("t", tenant)
            waiting.add(tenant)
        elif action == "leave":
            time.leave("t", tenant)
            last = tenant if tenant in waiting else last
            waiting.discard(tenant)
        else:
            time.charge("t", tenant, amount, 1.0)
            counter[tenant] += amount
            last = tenant if tenant not in waiting else last
        least = min(((counter[name], name) for name in waiting), default=(0.0, None))[1]
        assert time.least("t") == least
        assert {name: time.of("t", name) for name in counter} == counter
