"""What was weighed and chosen, in the caller's terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, overload

from paretoserve.domain.decision import Candidate, Outcome, Verdict
from paretoserve.domain.prediction import Prediction
from paretoserve.domain.targets import Targets
from paretoserve.policy.choose import Choice
from paretoserve.policy.directives import RuleError
from paretoserve.policy.options import Option
from paretoserve.policy.protocols import Case
from paretoserve.policy.weigh import Board, verdicts

PLACEABLE = (Verdict.FEASIBLE, Verdict.LIKELY)
IN_TIME = ("confident", "median")
"""Steps that place where it is in time."""
NO_REPLICA = "no replica runs this profile"


class Candidates(Sequence[Candidate]):
    """What was weighed, told in words when it is read: most decisions are never looked at.

    In the order of the options, the one to be preferred first, and of replica ids.
    """

    def __init__(self, board: Board, choice: Choice) -> None:
        self._board, self._chosen = board, choice.place

    @cached_property
    def _entries(self) -> list[tuple[Option, int | None]]:
        return list(_entries(self._board))

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, at: int) -> Candidate: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, at: int | slice) -> Candidate | Sequence[Candidate]:
        if isinstance(at, slice):
            return [self._told(*entry) for entry in self._entries[at]]
        return self._told(*self._entries[at])

    def __iter__(self) -> Iterator[Candidate]:
        columns = [figures.tolist() for figures in self._board.forecast.whole()]
        predictions = [Prediction(*row) for row in zip(*columns, strict=True)]
        for option, place in self._entries:
            if place is None:
                yield _absent(option)
            else:
                yield self._candidate(option, place, predictions[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    @cached_property
    def _verdicts(self) -> list[Verdict]:
        return verdicts(self._board)

    def _told(self, option: Option, place: int | None) -> Candidate:
        if place is None:
            return _absent(option)
        return self._candidate(option, place, self._board.prediction(place))

    def _candidate(self, option: Option, place: int, prediction: Prediction) -> Candidate:
        found, chosen = self._verdicts[place], place == self._chosen
        return _candidate(self._board, option, place, found, prediction, chosen=chosen)


def chosen(board: Board, choice: Choice) -> Candidate | None:
    """The chosen replica as it was weighed."""
    option, place = choice.option, choice.place
    if option is None or place is None:
        return None
    found = Verdict.FEASIBLE if board.confident[place] else verdicts(board)[place]
    return _candidate(board, option, place, found, board.prediction(place), chosen=True)


def _candidate(
    board: Board,
    option: Option,
    place: int,
    found: Verdict,
    prediction: Prediction,
    *,
    chosen: bool,
) -> Candidate:
    return Candidate(
        option.profile.name,
        board.columns.states[place].replica_id,
        Verdict.CHOSEN if chosen else found,
        detail(board, place, found, prediction),
        prediction,
        (("total_ms", prediction.e2e_ms),) if found in PLACEABLE else (),
        option.price,
        option.guest,
    )


def detail(board: Board, place: int, found: Verdict, prediction: Prediction) -> str:
    """Why a replica got its verdict, with the numbers."""
    rejection = board.columns.rejections[place]
    if rejection is not None:
        return rejection.detail
    return _DETAILS[found](board, place, prediction)


def _not_heard(board: Board, place: int, prediction: Prediction) -> str:  # noqa: ARG001
    age = board.case.now - board.columns.states[place].observed_at
    return f"not heard of for {age:.1f} s, limit {board.document.max_state_age_s:g} s"


def _likely(board: Board, place: int, prediction: Prediction) -> str:  # noqa: ARG001
    risks = ", ".join(_risks(prediction, board.case.targets))
    return f"in time at the median, not at {board.document.confidence:.0%}: {risks}"


def _past_break_even(board: Board, place: int, prediction: Prediction) -> str:  # noqa: ARG001
    state = board.columns.states[place]
    pays_to = next(o.pays_to for o in board.options if o.profile.name == state.profile)
    return f"batch {state.held + 1}: speculation pays up to {pays_to:.0f} at this acceptance"


_DETAILS: dict[Verdict, Callable[[Board, int, Prediction], str]] = {
    Verdict.NOT_SERVING: _not_heard,
    Verdict.FAILED_BEFORE: lambda board, place, p: "already failed this request",  # noqa: ARG005
    Verdict.FULL: lambda board, place, p: (  # noqa: ARG005
        f"KV cache has room for {board.columns.outlook.kv_room[place]:.0f} tokens more"
    ),
    Verdict.LATE_TTFT: lambda board, place, p: _late("TTFT", p.ttft_ms, board.case.targets.ttft_ms),  # noqa: ARG005
    Verdict.LATE_TPOT: lambda board, place, p: _late("TPOT", p.tpot_ms, board.case.targets.tpot_ms),  # noqa: ARG005
    Verdict.LATE_E2E: lambda board, place, p: _late(  # noqa: ARG005
        "end-to-end", p.e2e_ms, board.case.targets.e2e_ms
    ),
    Verdict.RESERVED: lambda board, place, p: (  # noqa: ARG005
        "what room is left is kept for tiers that cannot do without this profile"
    ),
    Verdict.PAST_BREAK_EVEN: _past_break_even,
    Verdict.LIKELY: _likely,
    Verdict.FEASIBLE: lambda board, place, p: f"in time at {board.document.confidence:.0%}",  # noqa: ARG005
}


class Ruling(NamedTuple):
    """A rule of the document that decided, and what it does to the decision."""

    rule: str
    does: str


def ruling(board: Board, choice: Choice) -> Ruling | None:
    """The rule that decided: it prefers what was chosen, or leaves nothing else, or nothing."""
    option, options = choice.option, board.options
    forbidden = [o.said.forbidden_by for o in options if o.said.forbidden_by]
    if option is None:
        nothing = forbidden and len(forbidden) == len(options)
        return Ruling(forbidden[0], "leaves no profile") if nothing else None
    if choice.rule not in IN_TIME:
        return None
    if option.said.preferred_by:
        return Ruling(option.said.preferred_by, f"prefers {option.profile.name}")
    if forbidden and len(forbidden) == len(options) - 1:
        return Ruling(forbidden[0], f"leaves only {option.profile.name}")
    return None


def reason(board: Board, choice: Choice, by: Ruling | None, errors: Iterable[RuleError]) -> str:
    """The decision in one sentence, and the rules of the document that could not be asked."""
    said = _why(board, choice) if by is None else f"rule {by.rule!r} {by.does}"
    if by is not None and choice.option is not None:
        said += f", which is in time for tier {board.case.tier.name}"
    said += _too_short(board.case)
    for error in errors:
        said += f"; rule {error.rule!r} did not apply: {error.kind}"
    return said


def _too_short(case: Case) -> str:
    """That the tier promises no TPOT to an answer that cannot get long enough for it."""
    request, promised = case.request, case.tier.targets
    if request.generated or promised.for_answer(request.max_tokens) is promised:
        return ""
    least = promised.tpot_from_tokens
    return f"; TPOT is promised from {least} tokens on, max_tokens is {request.max_tokens}"


def _why(board: Board, choice: Choice) -> str:
    """The step of the algorithm that decided, in words."""
    tier = board.case.tier.name
    if choice.option is None:
        words = verdicts(board)
        why = "; ".join(f"{o.profile.name}: {_summary(o, words)}" for o in board.options)
        if choice.outcome is Outcome.HELD:
            lone = choice.rule == "company"
            what = ", for a replica where nothing tighter is promised" if lone else ""
            return f"held for {choice.hold_s:.2f} s at most{what} ({why})"
        return f"no allowed profile can take it ({why})"
    name = choice.option.profile.name
    match choice.rule:
        case "confident" | "median":
            return (
                f"{name} is the cheapest that is in time for tier {tier}{_weighed(choice.option)}"
            )
        case "explore":
            return f"{name} is tried although past predictions speak against it"
        case "spill":
            return f"nothing else is in time: tier {tier} takes a reserved slot of {name}"
        case _:
            return f"in time nowhere: tier {tier} takes the least late"


def _weighed(option: Option) -> str:
    match [repr(rule) for rule in option.said.weighed_by]:
        case []:
            return ""
        case [rule]:
            return f", as rule {rule} weighs it"
        case rules:
            return f", as rules {' and '.join(rules)} weigh it"


def _entries(board: Board) -> Iterator[tuple[Option, int | None]]:
    for option in board.options:
        places = option.places
        if places.start == places.stop:
            yield option, None
        for place in range(places.start, places.stop):
            yield option, place


def _absent(option: Option) -> Candidate:
    """An option without a replica that could be weighed."""
    name, rejection = option.profile.name, option.rejection
    if rejection is not None:
        return Candidate(name, "", rejection.verdict, rejection.detail, price=option.price)
    return Candidate(name, "", Verdict.NO_REPLICA, NO_REPLICA, price=option.price)


def _summary(option: Option, words: Sequence[Verdict]) -> str:
    """What speaks against an option: its verdicts and how often each."""
    places = option.places
    if places.start == places.stop:
        return option.rejection.detail if option.rejection is not None else NO_REPLICA
    counts = Counter(words[places])
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def _late(name: str, predicted_ms: float, target_ms: float) -> str:
    return f"{name} {predicted_ms:.1f} ms predicted, {target_ms:g} ms promised"


def _risks(prediction: Prediction, targets: Targets) -> Iterator[str]:
    for name, predicted, target in (
        ("TTFT", prediction.ttft_high_ms, targets.ttft_ms),
        ("TPOT", prediction.tpot_high_ms, targets.tpot_ms),
        ("end-to-end", prediction.e2e_high_ms, targets.e2e_ms),
    ):
        if predicted > target:
            yield _late(name, predicted, target)
