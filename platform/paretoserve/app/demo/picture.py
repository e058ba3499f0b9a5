"""The picture: what each profile gives one user, against what it gives all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
MARKERS = ("o", "s", "^", "D")


def draw(sweep: Mapping[str, Any], machine: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Write frontier.png and frontier.svg from the figures of a sweep; returns their paths."""
    import matplotlib as mpl  # noqa: PLC0415 (only the demo has it, and only here)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    for profile, color, marker in zip(sweep["profiles"], COLORS, MARKERS, strict=False):
        x = [point["tokens_per_s_per_user"] for point in profile["points"]]
        y = [point["tokens_per_s"] for point in profile["points"]]
        label = f"{profile['profile']} ({profile['acceptance_length']:.2f} tokens/step)"
        axes.plot(x, y, color=color, marker=marker, label=label)
        for point in profile["points"]:
            axes.annotate(
                str(point["batch"]),
                (point["tokens_per_s_per_user"], point["tokens_per_s"]),
                xytext=(5, 5),
                textcoords="offset points",
                color=color,
            )
    axes.set_xlabel("tokens/s/user (one stream)")
    axes.set_ylabel("tokens/s (all streams of one replica)")
    axes.set_title(title(sweep, machine), fontsize=10)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(title="profile; a point's number: streams at once")
    paths = tuple(folder / f"frontier.{kind}" for kind in ("png", "svg"))
    for path in paths:
        figure.savefig(path, dpi=150)
    plt.close(figure)
    return paths


def title(sweep: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Says what was measured and on what; an emulation is never called a measurement."""
    engines = {profile["engine"] for profile in sweep["profiles"]}
    what = (
        "EMULATED, no model computed these"
        if "emulator" in engines
        else f"measured: the CPU demo model {machine['model']}, one core per profile"
    )
    return f"Two profiles of one model on {machine['cpu']}\n{what}"
