"""What was weighed and chosen, in the caller's terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import overload

from paretoserve.domain.decision import Candidate, Outcome, Verdict
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import Targets
from paretoserve.policy.choose import Boards, Choice
from paretoserve.policy.protocols import Case
from paretoserve.policy.weigh import Weighed


class Candidates(Sequence[Candidate]):
    """What was weighed, told in words when it is read: most decisions are never looked at."""

    def __init__(
        self,
        case: Case,
        document: PolicyDocument,
        boards: Sequence[Sequence[Weighed]],
        chosen: Weighed | None,
    ) -> None:
        self._case, self._document, self._chosen = case, document, chosen
        self._weighed = [weighed for board in boards for weighed in board]

    def __len__(self) -> int:
        return len(self._weighed)

    @overload
    def __getitem__(self, at: int) -> Candidate: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, at: int | slice) -> Candidate | Sequence[Candidate]:
        if isinstance(at, slice):
            return [self._told(weighed) for weighed in self._weighed[at]]
        return self._told(self._weighed[at])

    def __iter__(self) -> Iterator[Candidate]:
        return (self._told(weighed) for weighed in self._weighed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def _told(self, weighed: Weighed) -> Candidate:
        chosen = weighed is self._chosen
        return candidate(self._case, self._document, weighed, chosen=chosen)


SCORES = ("company", "total_ms")


def candidate(
    case: Case, document: PolicyDocument, weighed: Weighed, *, chosen: bool = False
) -> Candidate:
    """A weighed replica in the caller's terms."""
    placeable = weighed.verdict in (Verdict.FEASIBLE, Verdict.LIKELY)
    return Candidate(
        profile=weighed.option.profile.name,
        replica_id=weighed.replica_id,
        verdict=Verdict.CHOSEN if chosen else weighed.verdict,
        detail=detail(case, document, weighed),
        prediction=weighed.prediction,
        scores=tuple(zip(SCORES, map(float, weighed.score), strict=True)) if placeable else (),
        price=weighed.option.price,
        guest=weighed.option.guest,
    )


def detail(case: Case, document: PolicyDocument, weighed: Weighed) -> str:
    """Why a replica got its verdict, with the numbers."""
    if weighed.rejection is not None:
        return weighed.rejection.detail
    view, prediction, targets = weighed.view, weighed.prediction, case.targets
    if view is None or prediction is None:
        raise ValueError(f"{weighed.verdict} without a replica")
    match weighed.verdict:
        case Verdict.LATE_TTFT:
            return _late("TTFT", prediction.ttft_ms, targets.ttft_ms)
        case Verdict.LATE_TPOT:
            return _late("TPOT", prediction.tpot_ms, targets.tpot_ms)
        case Verdict.LATE_E2E:
            return _late("end-to-end", prediction.e2e_ms, targets.e2e_ms)
        case Verdict.NOT_SERVING:
            age = case.now - view.state.observed_at
            return f"not heard of for {age:.1f} s, limit {document.max_state_age_s:g} s"
        case Verdict.FULL:
            return f"KV cache has room for {view.outlook.kv_room:.0f} tokens more"
        case Verdict.FAILED_BEFORE:
            return "already failed this request"
        case Verdict.RESERVED:
            return (
                f"holds {view.state.guests} requests that others could serve; the rest is reserved"
            )
        case Verdict.LIKELY:
            return f"in time at the median, not at {document.confidence:.0%}: {_tight(prediction, targets)}"
        case _:
            return f"in time at {document.confidence:.0%}"


def _late(name: str, predicted_ms: float, target_ms: float) -> str:
    return f"{name} {predicted_ms:.1f} ms predicted, {target_ms:g} ms promised"


def _tight(prediction: Prediction, targets: Targets) -> str:
    figures: tuple[tuple[str, float, float], ...] = (
        ("TTFT", prediction.ttft_high_ms, targets.ttft_ms),
        ("TPOT", prediction.tpot_high_ms, targets.tpot_ms),
        ("end-to-end", prediction.e2e_high_ms, targets.e2e_ms),
    )
    return ", ".join(
        _late(name, predicted, target) for name, predicted, target in figures if predicted > target
    )


def reason(case: Case, boards: Boards, choice: Choice) -> str:
    """The decision in one sentence."""
    chosen = choice.weighed
    tier = case.tier.name
    if chosen is None:
        why = "; ".join(f"{board[0].option.profile.name}: {_summary(board)}" for board in boards)
        if choice.outcome is Outcome.HELD:
            return f"held for {choice.hold_s:.2f} s at most ({why})"
        return f"no allowed profile can take it ({why})"
    name = chosen.option.profile.name
    match choice.rule:
        case "confident" | "median":
            return f"{name} is the cheapest that is in time for tier {tier}"
        case "explore":
            return f"{name} is tried because only past predictions speak against it"
        case "spill":
            return f"nothing else is in time: tier {tier} takes a reserved slot of {name}"
        case _:
            return f"in time nowhere: tier {tier} takes the least late"


def _summary(board: Sequence[Weighed]) -> str:
    """What speaks against an option: its verdicts and how often each."""
    only = board[0].rejection
    if len(board) == 1 and only is not None:
        return only.detail
    counts = Counter(weighed.verdict for weighed in board)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
