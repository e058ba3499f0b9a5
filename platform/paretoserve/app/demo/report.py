"""The figures as text, for the terminal. Pure: everything in it comes from results.json."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

Figures = Mapping[str, Any]
Cell = str | int | float | None
WIDTH = 120


def render(results: Figures) -> str:
    """The whole report but for the decisions."""
    parts = (
        _header(results),
        _sweep(results["sweep"]),
        _workload(results["workload"]),
        _tiers(results["replay"]),
        _profiles(results["replay"]),
        _choice(results),
    )
    return "\n\n".join(parts)


def _header(results: Figures) -> str:
    machine = results["machine"]
    model = f"Model {machine['model']} on {machine['cores']} cores of {machine['cpu']}"
    lines = [f"{model}, torch {machine['torch']}, Ray {machine['ray']}"]
    if any(profile["engine"] == "emulator" for profile in results["sweep"]["profiles"]):
        lines.append(
            "EMULATED: some of these profiles play tokens at a given pace, without a model."
        )
    if results["quick"]:
        lines.append("QUICK: too short for figures; run it without --quick for those.")
    return "\n".join(lines)


def _sweep(sweep: Figures) -> str:
    rows = [
        (
            profile["profile"],
            point["batch"],
            point["running"],
            _n(point["tokens_per_s_per_user"]),
            _n(point["tokens_per_s"]),
            _n(point["tpot_ms"], 2),
            _n(point["tpot_from_steps_ms"], 2),
            _n(point["acceptance_length"], 2),
            _percent(point["spread"]),
        )
        for profile in sweep["profiles"]
        for point in profile["points"]
    ]
    headings = (
        "profile", "batch", "running", "tokens/s/user", "tokens/s", "TPOT ms", "by steps", "tokens/step", "spread",
    )  # fmt: skip
    prefill = ", ".join(
        f"{p['profile']} {p['prefill_tokens_per_s']:.0f} tokens/s" for p in sweep["profiles"]
    )
    same = sweep["same_output_share"]
    return _section(
        f"Measured at the executors, one profile at a time, {sweep['output_tokens']} tokens after "
        f"{sweep['prompt_tokens']}, medians of {sweep['rounds']} rounds",
        _table(headings, rows),
        f"prefill: {prefill}; both profiles gave the same tokens for {_percent(same)} of the prompts",
    )


def _workload(workload: Figures) -> str:
    shares = ", ".join(
        f"{c['tenant']} ({c['tier']}) {_percent(c['share'])}" for c in workload["clients"]
    )
    speed = workload["time_divisor"]
    return _section(
        f"Replayed: {workload['requests']} requests of the Azure 2023 conversation trace",
        f"prompt lengths divided by {workload['prompt_divisor']:g}, output lengths by "
        f"{workload['output_divisor']:g}; "
        f"{'faster' if speed >= 1 else 'slower'} than it was by "
        f"{speed if speed >= 1 else 1 / speed:.2f}: {workload['requests_per_s']:.1f} requests/s and "
        f"{workload['output_tokens_per_s']:.0f} tokens/s, which would take "
        f"{_percent(workload['offered_load'])} of one {workload['offered_load_of']} core at its "
        f"largest batch",
        f"each request is given to a tenant by a draw with seed {workload['seed']}: {shares}",
    )


def _tiers(replay: Figures) -> str:
    headings = (
        "tier", "requests", "done", "rejected", "failed", "served by",
        "TTFT p50", "p95", "target", "TPOT p50", "p95", "target", "attained",
    )  # fmt: skip
    rows = [
        (
            tier["tier"],
            tier["requests"],
            tier["done"],
            tier["rejected"],
            tier["failed"],
            ", ".join(f"{p['profile']} {p['requests']}" for p in tier["profiles"]) or "-",
            _n(tier["ttft_p50_ms"]),
            _n(tier["ttft_p95_ms"]),
            _n(tier["ttft_target_ms"]),
            _n(tier["tpot_p50_ms"], 1),
            _n(tier["tpot_p95_ms"], 1),
            _n(tier["tpot_target_ms"], 1),
            f"{_percent(tier['attainment'])} of {_percent(tier['promised'])}",
        )
        for tier in replay["tiers"]
    ]
    return _section(
        "What each tier got (milliseconds; attained: within all targets, rejected counts as missed)",
        _table(headings, rows, left=(0, 5)),
    )


def _profiles(replay: Figures) -> str:
    headings = (
        "profile", "requests", "tokens/s/user", "tokens/s", "busiest second", "tokens/step",
        "mean batch", "largest", "core-s",
    )  # fmt: skip
    rows = [
        (
            profile["profile"],
            profile["requests"],
            _n(profile["tokens_per_s_per_user"]),
            _n(profile["tokens_per_s"]),
            _n(profile["tokens_per_s_busiest_second"]),
            _n(profile["acceptance_length"], 2),
            _n(profile["batch_mean"], 1),
            profile["batch_max"],
            _n(profile["gpu_seconds"], 1),
        )
        for profile in replay["profiles"]
    ]
    return _section(
        f"What each profile did in the {replay['seconds']:.0f} s of the replay",
        _table(headings, rows),
    )


def _choice(results: Figures) -> str:
    goals = [
        f"{goal['goal']}: {goal['measured']:.2f} times, goal {goal['target']:g}: "
        f"{'met' if goal['met'] else 'NOT MET'} (by round: {_each(goal['by_round'])})"
        for goal in results["goals"]
    ]
    return _section("Did the choice matter?", *goals, *_counterfactual(results["choice"]))


def _counterfactual(choice: Figures) -> tuple[str, ...]:
    tiers, other = " and ".join(choice["tiers"]), choice["other_profile"]
    if choice["other_tpot_p50_ms"] is None or choice["measured_tpot_p50_ms"] is None:
        return (f"no {tiers or 'such'} request was served, so there is nothing to compare",)
    served = (
        f"{tiers}: {choice['measured_tpot_p50_ms']:.2f} ms/token measured (p50 of "
        f"{choice['requests']} requests). Had {other} served them at the load that they found "
        f"there: p50 {choice['other_tpot_p50_ms']:.2f}, p95 {choice['other_tpot_p95_ms']:.2f} "
        f"ms/token, {_percent(choice['other_in_time_share'])} in time (predicted from the "
        f"measured curves, not run)"
    )
    if choice["base_batch_mean"] is None:
        return (served,)
    load = (
        f"{other} ran at batch {choice['base_batch_mean']:.1f} on average: "
        f"{choice['base_tpot_at_mean_ms']:.2f} ms/token there by its curve, "
        f"{choice['fast_tpot_at_mean_ms']:.2f} by the other profile's (predicted)"
    )
    return served, load


def _section(title: str, *parts: str) -> str:
    """A title and its parts, indented: tables (several lines) as they are, prose wrapped."""
    return "\n".join((*wrap(title, WIDTH), *itertools.chain.from_iterable(map(_indented, parts))))


def _indented(part: str) -> list[str]:
    if "\n" in part:
        return [f"  {line}" for line in part.splitlines()]
    return wrap(part, WIDTH, initial_indent="  ", subsequent_indent="    ")


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[Cell]], left: tuple[int, ...] = (0,)
) -> str:
    texts = [tuple(headings), *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if at in left else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    )


def _n(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _each(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}%"
