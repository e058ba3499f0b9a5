"""The frontier as a picture, with the limit that memory bandwidth sets drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paretoserve.app.profiling.frontier import Operating
from paretoserve.domain.errors import EngineError

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
MARKERS = "os^Dv<>"
DASHES = ("--", ":", "-.")


def draw(points: Sequence[Operating], path: Path) -> None:
    """Write a picture in the format that the path's suffix names.

    Raises EngineError when matplotlib, the `demo` extra, is not installed, and for a path that
    cannot be written or a format that it does not know.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 (only this and the demo's picture need it)
    except ImportError as error:
        raise EngineError("a picture needs matplotlib: pip install 'paretoserve[demo]'") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for at, name in enumerate(dict.fromkeys(o.results.profile for o in points)):
        own = [o for o in points if o.results.profile == name]
        _profile(axes, own, COLORS[at % len(COLORS)], MARKERS[at % len(MARKERS)])
    for at, (label, limit) in enumerate(limits(points).items()):
        dashes = DASHES[at % len(DASHES)]
        axes.plot(*zip(*limit, strict=True), dashes, color="#777777", linewidth=1, label=label)
    axes.set_xlabel("tokens/s/user")
    axes.set_ylabel("tokens/s/GPU")
    axes.set_yscale("log")
    axes.set_xlim(left=0)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.set_title(title(points), fontsize=10)
    axes.legend(
        title="a point's number: batch; filled: on the frontier",
        fontsize=8,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.1),
        ncols=3,
    )
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: cannot be written: {error}") from error
    finally:
        plt.close(figure)


def limits(points: Sequence[Operating]) -> dict[str, list[tuple[float, float]]]:
    """What bandwidth alone would allow without drafting: (tokens/s/user, tokens/s/GPU) by batch.

    One line for each set of weights, at the KV tokens that its profile's points held per stream.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for name in dict.fromkeys(o.results.profile for o in points):
        own = [o for o in points if o.results.profile == name]
        memory = own[0].results.memory
        if memory is None or memory.drafts:
            continue
        line = []
        for o in own:
            batch, gpus = o.point.batch, o.results.gpus
            per_user = 1e3 / memory.floor_ms(batch, o.point.kv_tokens)
            line.append((per_user, per_user * batch / gpus))
        label = f"limit of {memory.bytes_per_s / gpus / 1e12:.1f} TB/s, as {name}"
        if line not in found.values():
            found[label] = line
    return found


def title(points: Sequence[Operating]) -> str:
    """What was measured and on what; an emulation is never called a measurement."""
    sources = sorted({o.results.source for o in points})
    hardware = sorted({o.results.hardware for o in points})
    first = points[0].point
    return (
        f"{', '.join(sources)} on {', '.join(hardware)}\n"
        f"{first.prompt_tokens} prompt and {first.output_tokens} output tokens"
    )


def _profile(axes: Any, own: Sequence[Operating], color: str, marker: str) -> None:
    x, y = [o.per_user for o in own], [o.per_gpu for o in own]
    steps = own[0].point.acceptance_length
    label = own[0].results.profile + (f" ({steps:.2f} tokens/step)" if steps > 1 else "")
    axes.plot(x, y, color=color, linewidth=1, label=label, marker=marker, markerfacecolor="white")
    best = [o for o in own if not o.beaten_by]
    axes.plot(
        [o.per_user for o in best],
        [o.per_gpu for o in best],
        color=color,
        marker=marker,
        linestyle="none",
    )
    for o in own:
        axes.annotate(
            str(o.point.batch),
            (o.per_user, o.per_gpu),
            xytext=(4, 4),
            textcoords="offset points",
            color=color,
            fontsize=7,
        )
