"""What online prediction costs, and how fast it learns and forgets: `python benchmarks/learning.py`.

Microseconds of an observation and of a reading, medians and least over rounds on one core. Then,
with no other traffic, for how long the median and the high factor stay above 1.5 after a number of
requests that took five times as long as predicted: how long bad experience can keep requests away.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

from paretoserve.domain.usage import Acceptance
from paretoserve.latency.acceptance import Acceptances
from paretoserve.latency.calibration import Calibration
from paretoserve.latency.length import Lengths

PROFILES, TENANTS, GAP_S = 4, 100, 1 / 300
SLOW, CONFIDENCE = 5.0, 0.95

Step = Callable[[int], object]


def calibrating(draw: random.Random) -> dict[str, Step]:
    calibration = Calibration(CONFIDENCE)
    always = Calibration(CONFIDENCE, refresh_s=1e-9)
    rows = [
        (f"p{number % PROFILES}", draw.random(), 100.0, 100 * draw.lognormvariate(0, 0.3))
        for number in range(1000)
    ]

    def observe(number: int, what: Calibration = calibration) -> None:
        profile, load, predicted, observed = rows[number % 1000]
        what.observe(profile, load, predicted, observed, predicted, observed, number * GAP_S)

    def refresh(number: int) -> None:
        observe(number, always)
        always.residuals(number * GAP_S)

    return {
        "residuals, observe": observe,
        "residuals, read": lambda _: calibration.residuals(0),
        f"residuals, observe and bring all {PROFILES} profiles up to date": refresh,
    }


def measuring(draw: random.Random) -> dict[str, Step]:
    lengths, acceptances = Lengths(), Acceptances()
    rows = [(f"t{draw.randrange(TENANTS)}", int(draw.lognormvariate(5, 1))) for _ in range(1000)]

    def observe(number: int) -> None:
        tenant, tokens = rows[number % 1000]
        lengths.observe(tenant, tokens, number % 9 == 0, number * GAP_S)

    def accept(number: int) -> None:
        tenant, tokens = rows[number % 1000]
        acceptances.observe(tenant, "p0", Acceptance(tokens, 3 * tokens, tokens), number * GAP_S)

    return {
        "lengths, observe": observe,
        "lengths, estimate": lambda number: lengths.estimate(rows[number % 1000][0], 1000, 0.75),
        "lengths, remaining": lambda number: lengths.remaining(*rows[number % 1000], 2000, 0.9),
        "acceptance, observe": accept,
        "acceptance, factor": lambda number: acceptances.factor(rows[number % 1000][0], "p0", 2.0),
    }


def microseconds(step: Step, first: int, steps: int) -> float:
    began = time.perf_counter()
    for number in range(first, first + steps):
        step(number)
    return (time.perf_counter() - began) / steps * 1e6


def costs(rounds: int, steps: int) -> None:
    draw = random.Random(0)
    measured = {**calibrating(draw), **measuring(draw)}
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for round_number in range(rounds):
        for name, step in measured.items():
            taken[name].append(microseconds(step, round_number * steps, steps))
    for name, values in taken.items():
        print(f"{name:58} {statistics.median(values):7.1f} us  (least {min(values):.1f})")


def lockout(slow: int) -> tuple[float, float]:
    """Seconds for which the median, and the high factor, stay above 1.5."""
    calibration = Calibration(CONFIDENCE)
    for _ in range(slow):
        calibration.observe("p", 0.5, 100, 100 * SLOW, 10, 10 * SLOW, 0.0)
    median_s = high_s = 0.0
    for second in range(1, 1000):
        factors = calibration.residuals(second)["p"].at(0.5)
        median_s = second if factors.tpot > 1.5 else median_s
        high_s = second if factors.tpot_high > 1.5 else high_s
    return median_s, high_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    print(f"per call, {PROFILES} profiles, {TENANTS} tenants")
    costs(args.rounds, args.steps)
    print(f"\nrequests {SLOW:.0f}x too slow   median above 1.5   high factor above 1.5")
    for slow in (1, 2, 5, 10, 30, 1000):
        median_s, high_s = lockout(slow)
        print(f"{slow:20} {median_s:16.0f} s {high_s:20.0f} s")


if __name__ == "__main__":
    main()
