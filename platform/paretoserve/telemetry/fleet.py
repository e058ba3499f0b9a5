"""Gauges of the replicas, read from the gateway's own view of its fleet at every scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from paretoserve.domain.replica import ReplicaState
from paretoserve.telemetry import catalog
from paretoserve.telemetry.catalog import Label, Metric
from paretoserve.telemetry.instruments import Instruments, Labels, Readings

_VALUES: tuple[tuple[Metric, Callable[[ReplicaState], float]], ...] = (
    (catalog.RUNNING, lambda state: state.running),
    (catalog.WAITING, lambda state: state.waiting),
    (catalog.KV_USED, lambda state: state.kv_used_tokens),
    (catalog.KV_TOTAL, lambda state: state.kv_total_tokens),
    (catalog.STEP, lambda state: state.step_ms / 1000),
    (catalog.ACCEPTANCE, lambda state: state.acceptance_length),
)


def watch_fleet(
    instruments: Instruments,
    replicas: Callable[[], Iterable[ReplicaState]],
    reserved: Callable[[str], int],
) -> None:
    """Export every replica's state, and how many requests `reserved` says are held on it.

    Both are called where the metrics are rendered: render them on the loop that owns the fleet.
    """

    def read(value: Callable[[ReplicaState], float]) -> Callable[[], Readings]:
        return lambda: [(value(state), _labels(state)) for state in replicas()]

    def states() -> Iterator[tuple[float, Labels]]:
        for state in replicas():
            yield 1, {**_labels(state), Label.STATE: str(state.health)}

    for metric, value in _VALUES:
        instruments.gauge(metric, read(value))
    instruments.gauge(catalog.STATE, states)
    instruments.gauge(catalog.RESERVATIONS, read(lambda state: reserved(state.replica_id)))


def _labels(state: ReplicaState) -> Labels:
    return {Label.REPLICA: state.replica_id, Label.PROFILE: state.profile}
