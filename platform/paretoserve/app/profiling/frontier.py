"""Which profiles lie on the frontier of tokens/s/user and tokens/s/GPU, and which are beaten. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paretoserve.app.profiling.curve import latency_curve, shortest
from paretoserve.app.profiling.results import ProfilePoint, ProfileResults
from paretoserve.latency.speculation import break_even_batch

ACCEPTANCES = (1.5, 2.0, 2.5, 3.0, 3.5)
"""Tokens a step at which the break-even batch is told, beside the measured one."""


@dataclass(frozen=True, slots=True)
class Operating:
    """A profile at a batch, and what beats it: as fast or faster for a user and for a GPU."""

    results: ProfileResults
    point: ProfilePoint
    beaten_by: tuple[Operating, ...] = ()

    @property
    def per_user(self) -> float:
        return self.point.tokens_per_s_per_user

    @property
    def per_gpu(self) -> float:
        return self.results.per_gpu(self.point)

    def beats(self, other: Operating) -> bool:
        """Whether nobody would choose `other` while this can be had."""
        mine, its = (self.per_user, self.per_gpu), (other.per_user, other.per_gpu)
        return mine != its and mine[0] >= its[0] and mine[1] >= its[1]


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Up to which batch a speculative profile is faster than a plain one at an acceptance.

    `batch` is None where it still is at any batch, and 0 where it never is; beyond `measured`,
    the largest batch of both, it follows from their last slopes.
    """

    plain: str
    speculative: str
    acceptance: float
    batch: float | None
    measured: int


def operating_points(all_results: Sequence[ProfileResults]) -> list[Operating]:
    """Each profile's points at the shortest prompts that all have been measured at, with those of
    all profiles that beat them.

    Only points of the same prompt and output lengths compare. Where there is none that all have,
    the first profile's shortest are taken, and the profiles without them are left out.
    """
    measured = [results for results in all_results if results.points]
    if not measured:
        return []
    shared = set.intersection(*({_lengths(point) for point in r.points} for r in measured))
    of_first = [p for p in measured[0].points if _lengths(p) in shared] or measured[0].points
    lengths = _lengths(shortest(of_first)[0])
    of = [
        Operating(results, point)
        for results in measured
        for point in sorted(results.points, key=lambda point: point.batch)
        if _lengths(point) == lengths
    ]
    return [
        Operating(o.results, o.point, tuple(other for other in of if other.beats(o))) for o in of
    ]


def break_evens(all_results: Sequence[ProfileResults]) -> list[BreakEven]:
    """For each speculative profile beside each plain one of the same model and GPUs."""
    found = []
    for speculative in filter(_speculates, all_results):
        curve = latency_curve(speculative)
        for plain in all_results:
            same = (plain.model, plain.gpus) == (speculative.model, speculative.gpus)
            if not same or _speculates(plain) or not plain.points:
                continue
            base = latency_curve(plain)
            measured = min(curve.points[-1].batch, base.points[-1].batch)
            own = curve.acceptance_length
            for acceptance in sorted({*ACCEPTANCES, own}):
                batch = break_even_batch(base, curve, acceptance)
                found.append(
                    BreakEven(plain.profile, speculative.profile, acceptance, batch, measured)
                )
    return found


def _lengths(point: ProfilePoint) -> tuple[int, int]:
    return point.prompt_tokens, point.output_tokens


def _speculates(results: ProfileResults) -> bool:
    return any(point.acceptance_length > 1 for point in results.points)
