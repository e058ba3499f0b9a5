"""The report about limits: the highest load of each contender, and what bounds them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from paretoserve.sim.report_cells import Cell, Figures, Table, names, number, percent, row

FOR_EVER, IN_A_RUN = "upper bound, for ever", "upper bound, one run"


def highest_loads(report: Figures) -> Table:
    """A row for each contender and goal, and two for what no policy can exceed."""
    first = {
        found["goal"]: found["rate"]
        for found in reversed(report["highest_loads"])
        if found["policy"] == names(report)[0]
    }
    bounds = {bound["goal"]: bound for bound in report["bounds"]}
    rows = [
        (
            *row(found["policy"], percent(found["goal"], 0), number(found["load"], 2)),
            Cell(number(found["rate"], 0), _above(found["rate"], bounds.get(found["goal"]))),
            *row(
                _ratio(found["rate"], first.get(found["goal"])),
                found["limit"] or "-",
                _fleet(found["replicas"]),
                str(len(found["runs"])),
            ),
        )
        for found in report["highest_loads"]
    ]
    rows += [
        row(
            name, percent(bound["goal"], 0), number(bound[f"{key}load"], 2),
            number(bound[f"{key}rate"], 0), _ratio(bound[f"{key}rate"], first.get(bound["goal"])),
            ", ".join(bound["hopeless"]) or "-", "any", "-",
        )
        for bound in report["bounds"]
        for name, key in ((FOR_EVER, ""), (IN_A_RUN, "run_"))
    ]  # fmt: skip
    return Table(
        "The highest load with every tier at the goal",
        "in-contract requests; each load passed with two seeds; limit: the tier that failed next",
        ("policy", "goal", "load", "requests/s", "over first", "limit", "fleet", "runs"),
        tuple(rows) if report["highest_loads"] else (),
        left=(0, 5, 6),
    )


def about_bounds(report: Figures) -> Iterator[str]:
    """A line for each upper bound, in words."""
    for bound in report["bounds"]:
        goal = percent(bound["goal"], 0)
        if bound["hopeless"]:
            yield (
                f"No policy attains {goal} at any load: too many requests of "
                f"{', '.join(bound['hopeless'])} ask for more than any profile gives even one alone."
            )
        elif bound["rate"] is None:
            yield (
                f"Upper bound at {goal}: none, for a contract or a quota may leave each request "
                "unpromised."
            )
        else:
            yield f"Upper bound at {goal}: {_bounded(report, bound)}"


def _bounded(report: Figures, bound: Figures) -> str:
    judged_s = report["inputs"]["duration_s"] - report["inputs"]["warmup_s"]
    left_out = "" if bound["promised"] == 1 else (
        f" {percent(1 - bound['promised'], 0)} of the requests, which a contract or a quota bounds, "
        "are not charged."
    )  # fmt: skip
    return (
        f"no policy sustains more than {_rate(bound, '')}; a run that judges {judged_s:g} s, and "
        f"computes the last of it when nothing more comes, no more than {_rate(bound, 'run_')}."
        f"{left_out}"
    )


def _rate(bound: Figures, key: str) -> str:
    rate = f"{number(bound[f'{key}rate'], 0)} requests/s"
    if bound[f"{key}low"] is None:
        return rate
    low, high = bound[f"{key}low"], bound[f"{key}high"]
    return f"{rate} (95%: {number(low, 0)} to {number(high, 0)})"


def _above(rate: float, bound: Figures | None) -> bool:
    """Whether a rate is above what one run can have, which would show that the bound is none."""
    if bound is None:
        return False
    most = bound["run_high"] or bound["run_rate"]
    return most is not None and rate > most


def _fleet(replicas: Mapping[str, int] | None) -> str:
    return " + ".join(f"{n} {name}" for name, n in (replicas or {}).items()) or "-"


def _ratio(rate: float | None, first: float | None) -> str:
    return f"{rate / first:.2f}" if rate is not None and first else "-"
