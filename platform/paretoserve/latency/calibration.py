"""Calibration: what observed times say of the latency curves, as factors on their predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from paretoserve.domain.residual import LOAD_BUCKETS, Factors, Residuals
from paretoserve.latency.ratios import Ratios

HALF_LIFE_S = 20.0
REFRESH_S = 0.25
SAME = 0.01
"""A factor that has moved by less than this share is left as it is."""
LEAST_MS = 0.01
"""A prediction below this cannot be judged by a ratio."""


class Calibration:
    """Online quantiles of observed over predicted time, by profile, load and metric.

    Observations fade (`latency.ratios`): without news the factors return to the prior's, so that
    no estimate, however bad, keeps requests out of a profile for good.
    """

    def __init__(
        self,
        confidence: float,
        profiles: Iterable[str] = (),
        *,
        half_life_s: float = HALF_LIFE_S,
        refresh_s: float = REFRESH_S,
    ) -> None:
        """`profiles` have the prior's factors before anything was observed of them.

        Raises ValueError for a confidence that is not above 0.5 and below 1, or a time that is
        not above 0.
        """
        if not 0.5 < confidence < 1:
            raise ValueError(f"confidence is {confidence}; it must be above 0.5 and below 1")
        if not (half_life_s > 0 and refresh_s > 0):
            raise ValueError(
                f"half_life_s is {half_life_s} and refresh_s {refresh_s}; both must be above 0"
            )
        self.confidence = confidence
        """May be set anew: what is known is read at it from its next refresh on."""
        self._half_life_s = half_life_s
        self._refresh_s = refresh_s
        self._refreshed: dict[str, float] = {}
        """When each profile was, the longest ago first."""
        self._ratios: dict[str, tuple[Ratios, Ratios]] = {}
        self._residuals: Mapping[str, Residuals] = {}
        self.know(profiles)

    def know(self, profiles: Iterable[str]) -> None:
        """Profiles that are new have the prior's factors."""
        prior = Ratios(self._half_life_s)
        nothing = _residuals(prior, prior, 0.0, self.confidence)
        self._residuals = {**dict.fromkeys(profiles, nothing), **self._residuals}

    def observe(  # noqa: PLR0917 (what a request got, in one row)
        self,
        profile: str,
        load: float,
        predicted_ttft_ms: float | None,
        ttft_ms: float | None,
        predicted_tpot_ms: float | None,
        tpot_ms: float | None,
        now: float,
    ) -> None:
        """What a request got, beside what the bare curve had said, milliseconds; None for what is
        not known. `load` is what the replica held over what it admits when that was predicted.

        Best called with the TTFT as soon as there is one and again with the TPOT: the latest are
        otherwise the last to be heard of. Raises ValueError for a number that is not finite, a
        negative time or a negative load.
        """
        if not 0 <= load < math.inf:
            raise _bad(profile, "load", load)
        bucket = min(int(load * LOAD_BUCKETS), LOAD_BUCKETS - 1)
        known = self._ratios.get(profile) or self._begin(profile)
        if predicted_ttft_ms is not None and ttft_ms is not None:
            ratio = _ratio(profile, "TTFT", predicted_ttft_ms, ttft_ms)
            if ratio is not None:
                known[0].add(bucket, ratio, now)
        if predicted_tpot_ms is not None and tpot_ms is not None:
            ratio = _ratio(profile, "TPOT", predicted_tpot_ms, tpot_ms)
            if ratio is not None:
                known[1].add(bucket, ratio, now)

    def observe_unanswered(
        self, profile: str, load: float, predicted_ttft_ms: float, waited_ms: float, now: float
    ) -> None:
        """A request was given up before its first token, after `waited_ms` on the replica.

        Its TTFT would have been longer. Where that is later than predicted it counts as observed,
        else it says nothing; without it only requests that were served would count. Not for a
        lost replica, whose silence is no fault of the curve. Raises as `observe` does.
        """
        late = waited_ms if waited_ms > predicted_ttft_ms else None
        self.observe(profile, load, predicted_ttft_ms, late, None, None, now)

    def residuals(self, now: float) -> Mapping[str, Residuals]:
        """By profile. The mapping and each of its values stay the same objects until a factor has
        moved by a hundredth.

        A call brings one profile up to date of those that are `refresh_s` old, so that no reader
        pays for all of them; and any that are older than twice that.
        """
        while self._refreshed:
            profile, refreshed_at = next(iter(self._refreshed.items()))
            if now - refreshed_at < self._refresh_s:
                break
            self._refresh(profile, now)
            if now - refreshed_at < 2 * self._refresh_s:
                break
        return self._residuals

    def _refresh(self, profile: str, now: float) -> None:
        del self._refreshed[profile]
        self._refreshed[profile] = now
        ttft, tpot = self._ratios[profile]
        new = _residuals(ttft, tpot, now, self.confidence)
        if not _same(new, self._residuals.get(profile)):
            self._residuals = {**self._residuals, profile: new}

    def _begin(self, profile: str) -> tuple[Ratios, Ratios]:
        self._refreshed[profile] = -math.inf
        known = self._ratios[profile] = (
            Ratios(self._half_life_s),
            Ratios(self._half_life_s),
        )
        return known


def _residuals(ttft: Ratios, tpot: Ratios, now: float, confidence: float) -> Residuals:
    pairs = zip(ttft.factors(now, confidence), tpot.factors(now, confidence), strict=True)
    return Residuals(tuple(Factors(*of_ttft, *of_tpot) for of_ttft, of_tpot in pairs))


def _ratio(profile: str, metric: str, predicted_ms: float, observed_ms: float) -> float | None:
    """None where nothing was predicted that a factor could correct."""
    if not math.isfinite(predicted_ms):
        raise _bad(profile, f"predicted {metric}", predicted_ms)
    if not 0 <= observed_ms < math.inf:
        raise _bad(profile, f"observed {metric}", observed_ms)
    return observed_ms / predicted_ms if predicted_ms >= LEAST_MS else None


def _bad(profile: str, what: str, value: float) -> ValueError:
    return ValueError(f"profile {profile}: {what} is {value}; it must be finite and not negative")


def _same(new: Residuals, old: Residuals | None) -> bool:
    return old is not None and all(
        abs(value - previous) <= SAME * previous
        for bucket, before in zip(new.buckets, old.buckets, strict=True)
        for value, previous in zip(bucket, before, strict=True)
    )
