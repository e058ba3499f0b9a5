"""A decision as a table that a person can read."""

from __future__ import annotations

from collections.abc import Sequence

from paretoserve.domain.decision import Candidate, Decision, Verdict

HEADINGS = ("", "profile", "replica", "verdict", "wait", "TTFT", "TPOT", "GPU-s", "why")
NUMBERS = range(4, 8)
LATE = "!"


def decision_table(decision: Decision, tier: str = "") -> str:
    """What was decided and why, the targets, then one line for each candidate.

    `->` marks the chosen one, `!` a prediction that misses its target. Times in milliseconds.
    """
    rows = [_row(decision, candidate) for candidate in decision.candidates]
    return "\n".join((*_summary(decision, tier), "", *_aligned([HEADINGS, *rows])))


def _summary(decision: Decision, tier: str) -> tuple[str, ...]:
    where = f" -> {decision.chosen.profile}" if decision.chosen else ""
    again = decision.retry_after_s
    targets = f"TTFT {decision.ttft_target_ms:g} ms, TPOT {decision.tpot_target_ms:g} ms"
    whose = f"tier {tier}, " if tier else ""
    return (
        f"{decision.request_id}: {decision.outcome}{where}",
        f"  because {decision.reason}",
        *((f"  try again in {again:.2f} s",) if again is not None else ()),
        f"  {whose}policy {decision.policy_version}, targets: {targets}",
    )


def _row(decision: Decision, candidate: Candidate) -> tuple[str, ...]:
    prediction = candidate.prediction
    numbers = ("-",) * len(NUMBERS)
    if prediction is not None:
        numbers = (
            f"{prediction.wait_ms:.0f}",
            _against(prediction.ttft_ms, decision.ttft_target_ms, ".0f"),
            _against(prediction.tpot_ms, decision.tpot_target_ms, ".2f"),
            f"{prediction.gpu_seconds:.3f}",
        )
    mark = "->" if candidate.verdict is Verdict.CHOSEN else ""
    replica = candidate.replica_id or "-"
    return (mark, candidate.profile, replica, candidate.verdict, *numbers, candidate.detail)


def _against(predicted: float, target: float, form: str) -> str:
    return f"{predicted:{form}}{LATE if predicted > target else ' '}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cells(row, widths)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        text.rjust(width) if at in NUMBERS else text.ljust(width)
        for at, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
