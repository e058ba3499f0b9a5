"""Metrics of the policy in force, and of a candidate that is tried beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from paretoserve.telemetry import catalog
from paretoserve.telemetry.catalog import Label
from paretoserve.telemetry.instruments import Instruments, Labels, Readings

if TYPE_CHECKING:
    from paretoserve.policy.comparison import Comparison

LIVE, CANDIDATE = "live", "candidate"


class InForce(NamedTuple):
    """What a gateway decides by. `loaded_at` is Unix seconds; `problems` are those of the
    documents as they are now, where they could not be taken over.
    """

    version: str
    hash: str
    loaded_at: float
    problems: tuple[str, ...] = ()


class Tried(NamedTuple):
    """A candidate and how it is tried: `shadow`, `canary`, `rolled_back` or `given_up`."""

    version: str
    phase: str


class PolicyMetrics:
    """Records of one gateway. What is watched is called where the metrics are rendered."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments

    def watch_in_force(self, read: Callable[[], InForce | None]) -> None:
        """Call once. None is no reading: nobody looks after the documents."""

        def gauge(value: Callable[[InForce], tuple[float, Labels]]) -> Callable[[], Readings]:
            return lambda: [value(found)] if (found := read()) is not None else []

        def named(found: InForce) -> tuple[float, Labels]:
            return 1, {Label.VERSION: found.version, Label.HASH: found.hash}

        self._instruments.gauge(catalog.POLICY_INFO, gauge(named))
        self._instruments.gauge(catalog.POLICY_LOADED, gauge(lambda f: (f.loaded_at, {})))
        self._instruments.gauge(catalog.POLICY_ERROR, gauge(lambda f: (bool(f.problems), {})))
        self._instruments.record(catalog.POLICY_FAILURES, 0, {})

    def watch_candidate(self, read: Callable[[], Tried | None]) -> None:
        """Call once. None is no reading: there is no candidate."""

        def readings() -> Readings:
            found = read()
            if found is not None:
                yield 1, {Label.VERSION: found.version, Label.PHASE: found.phase}

        self._instruments.gauge(catalog.CANDIDATE_INFO, readings)

    def load_failed(self) -> None:
        """Count documents that could not be taken over."""
        self._instruments.record(catalog.POLICY_FAILURES, 1, {})

    def candidate_failed(self) -> None:
        """Count a request at which the candidate raised an error."""
        self._instruments.record(catalog.CANDIDATE_FAILURES, 1, {})

    def compared(self, comparison: Comparison) -> None:
        """Count a comparison, and what either policy expects where both expect something."""
        record, tier = self._instruments.record, {Label.TIER: comparison.tier}
        record(catalog.SHADOW_DECISIONS, 1, {**tier, Label.CONTRAST: str(comparison.contrast)})
        for side, foreseen in ((LIVE, comparison.live), (CANDIDATE, comparison.candidate)):
            if comparison.foreseeable and foreseen.attained is not None:
                labels = {**tier, Label.POLICY: side}
                record(catalog.SHADOW_EXPECTED, 1, labels)
                record(catalog.SHADOW_GPU_SECONDS, foreseen.gpu_seconds, labels)
                record(catalog.SHADOW_ATTAINED, foreseen.attained, labels)
