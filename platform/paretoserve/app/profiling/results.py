"""The file that a profile's measurements are kept in: small JSON, rewritten after each point."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from paretoserve.app.profiling.memory import Memory
from paretoserve.app.profiling.streams import Run, acceptance_length, kv_tokens, window
from paretoserve.domain.errors import EngineError

FORMAT = 1
Place = tuple[int, int, int]
"""Batch, prompt tokens and output tokens: what names a point of a sweep."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of a batch's streams, milliseconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Nearest-rank quantiles of at least one value."""
        ordered = sorted(values)
        return cls(*(_rank(ordered, share) for share in (0.5, 0.95, 0.99)))


@dataclass(frozen=True, slots=True)
class ProfilePoint:
    """One profile at one batch and length.

    `batch` streams began at once and `running` of them decoded at a time. `seconds` and `tokens` are
    of the time while they did, in the run of median speed, and `acceptance_length` and `kv_tokens`,
    the mean that those running held together, are that run's. `ttft_ms` and `tpot_ms` are of the
    streams of all runs: the first of a batch that arrives at once, so it grows with it, the second
    over a stream's whole life.
    """

    batch: int
    prompt_tokens: int
    output_tokens: int
    running: int
    seconds: float
    tokens: int
    ttft_ms: Quantiles
    tpot_ms: Quantiles
    acceptance_length: float
    kv_tokens: float

    @property
    def place(self) -> Place:
        return self.batch, self.prompt_tokens, self.output_tokens

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def tokens_per_s_per_user(self) -> float:
        """Of a stream that runs."""
        return self.tokens_per_s / self.running

    @property
    def step_ms(self) -> float:
        """Wall time of one engine step while the batch was full."""
        return 1e3 * self.acceptance_length / self.tokens_per_s_per_user


@dataclass(slots=True)
class ProfileResults:
    """All that was measured of one profile, and on what."""

    profile: str
    engine: str
    model: str
    hardware: str
    gpus: float
    source: str = "measured"
    engine_args: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    memory: Memory | None = None
    points: list[ProfilePoint] = field(default_factory=list)

    def has(self, place: Place) -> bool:
        """Whether that point was measured already."""
        return any(point.place == place for point in self.points)

    def per_gpu(self, point: ProfilePoint) -> float:
        """Tokens/s that one GPU makes at that point."""
        return point.tokens_per_s / self.gpus

    def gpu_seconds_per_1k_tokens(self, point: ProfilePoint) -> float:
        """What 1,000 output tokens cost at that point."""
        return 1e3 / self.per_gpu(point)

    def share_of_limit(self, point: ProfilePoint) -> float | None:
        """The least time that memory allows a step, over what it took; None if not known."""
        if self.memory is None:
            return None
        return self.memory.floor_ms(point.running, point.kv_tokens) / point.step_ms

    def save(self, path: Path) -> None:
        """Write all of it; a reader never sees half a file."""
        content = {"format": FORMAT, **asdict(self)}
        content["points"] = [self._row(point) for point in self.points]
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` wrote. Raises EngineError naming the file and what is wrong."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise EngineError(f"{path}: is of another format than {FORMAT}")
            memory = content.pop("memory")
            points = [_point(row) for row in content.pop("points")]
            return cls(**content, memory=Memory(**memory) if memory else None, points=points)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise EngineError(f"{path}: is no file of profile results: {error!r}") from error

    def _row(self, point: ProfilePoint) -> dict[str, Any]:
        """The point with what follows from it, for those who read the file without us."""
        share = self.share_of_limit(point)
        return {
            **asdict(point),
            "tokens_per_s": round(point.tokens_per_s, 2),
            "tokens_per_s_per_user": round(point.tokens_per_s_per_user, 3),
            "tokens_per_s_per_gpu": round(self.per_gpu(point), 2),
            "gpu_seconds_per_1k_tokens": round(self.gpu_seconds_per_1k_tokens(point), 5),
            "step_ms": round(point.step_ms, 4),
            "share_of_memory_limit": share and round(share, 4),
        }


def point_of(runs: Sequence[Run], place: Place, running: int) -> ProfilePoint:
    """The figures of one point from its repeated runs: those of the run of median speed, of an even
    number the slower of the two.

    Raises EngineError when `running` streams never decoded together.
    """
    full = [(found, run) for run in runs if (found := window(run, running))]
    if not full:
        raise EngineError(
            f"batch {place[0]}: {running} streams never decoded together; measure longer outputs"
        )
    full.sort(key=lambda pair: pair[0].tokens / pair[0].seconds)
    typical, its_run = full[(len(full) - 1) // 2]
    streams = [stream for run in runs for stream in run.streams]
    return ProfilePoint(
        *place,
        running=running,
        seconds=typical.seconds,
        tokens=typical.tokens,
        ttft_ms=Quantiles.of(
            [1e3 * (s.deliveries[0][0] - r.began) for r in runs for s in r.streams]
        ),
        tpot_ms=Quantiles.of([_tpot_ms(stream.deliveries) for stream in streams]),
        acceptance_length=acceptance_length([its_run]),
        kv_tokens=kv_tokens([its_run]) * running / len(its_run.streams),
    )


def _tpot_ms(deliveries: Sequence[tuple[float, tuple[int, ...]]]) -> float:
    after_first = sum(len(tokens) for _, tokens in deliveries[1:])
    return 1e3 * (deliveries[-1][0] - deliveries[0][0]) / max(1, after_first)


def _point(row: dict[str, Any]) -> ProfilePoint:
    own = {name.name: row[name.name] for name in fields(ProfilePoint)}
    for name in ("ttft_ms", "tpot_ms"):
        own[name] = Quantiles(**own[name])
    return ProfilePoint(**own)


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
