"""From what was measured to result files, curves, the frontier: figures that can be told by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.app.cli import main
from paretoserve.app.profiling.curve import latency_curve, rising
from paretoserve.app.profiling.frontier import break_evens, operating_points
from paretoserve.app.profiling.frontier_picture import limits, title
from paretoserve.app.profiling.frontier_report import report
from paretoserve.app.profiling.memory import Memory
from paretoserve.app.profiling.results import ProfilePoint, ProfileResults, Quantiles, point_of
from paretoserve.app.profiling.streams import Run, Stream
from paretoserve.app.profiling.sweep import ProfileSweep
from paretoserve.domain.completion import FinishReason
from paretoserve.domain.errors import EngineError
from paretoserve.domain.profile import LatencyCurve, Limits
from paretoserve.domain.usage import Acceptance, Timing, Usage
from paretoserve.executor.contract import Finish

MEMORY = Memory(bytes_per_s=4e12, dense_bytes=16e9, kv_bytes_per_token=1e5)


def point(batch: int, tpot_ms: float, *, prompt: int = 100, ttft: float = 20.0, steps: float = 1.0):
    per_s = 1000 * batch / tpot_ms
    return ProfilePoint(
        batch=batch,
        prompt_tokens=prompt,
        output_tokens=100,
        running=batch,
        seconds=1.0,
        tokens=round(per_s),
        ttft_ms=Quantiles(ttft, ttft, ttft),
        tpot_ms=Quantiles(tpot_ms, tpot_ms, tpot_ms),
        acceptance_length=steps,
        kv_tokens=batch * (prompt + 50.0),
    )


def results(name: str, *points: ProfilePoint, **more) -> ProfileResults:
    return ProfileResults(name, "vllm", "big", "a GPU", 1.0, points=list(points), **more)


PLAIN = results("plain", point(1, 5.0), point(8, 6.25), point(64, 10.0), memory=MEMORY)
DRAFTING = results("drafting", point(1, 2.5, steps=3.0), point(8, 5.0, steps=3.0))
SLOW = results("slow", point(1, 10.0), point(8, 12.5))


def test_a_step_reads_weights_experts_drafts_and_cache() -> None:
    assert MEMORY.floor_ms(1, 0) == pytest.approx(4.0)
    assert MEMORY.floor_ms(9, 40_000) == pytest.approx(5.0)
    experts = replace(MEMORY, expert_bytes=128e9, experts=128, experts_per_token=1)
    assert experts.step_bytes(1, 0) == pytest.approx(17e9)
    assert experts.step_bytes(10_000, 0) == pytest.approx(144e9)
    assert replace(MEMORY, draft_bytes=1e9, drafts=3).step_bytes(1, 0) == pytest.approx(19e9)


def test_a_file_of_results_comes_back_as_it_was(tmp_path: Path) -> None:
    PLAIN.save(tmp_path / "plain.json")
    assert ProfileResults.load(tmp_path / "plain.json") == PLAIN
    (tmp_path / "bad.json").write_text('{"format": 1, "profile": "x"}')
    with pytest.raises(EngineError, match=r"bad\.json"):
        ProfileResults.load(tmp_path / "bad.json")


def test_figures_that_follow_from_a_point() -> None:
    drafting = DRAFTING.points[0]
    assert drafting.tokens_per_s_per_user == 400
    assert drafting.step_ms == pytest.approx(7.5)
    assert DRAFTING.gpu_seconds_per_1k_tokens(drafting) == pytest.approx(2.5)
    assert PLAIN.share_of_limit(PLAIN.points[0]) == pytest.approx(0.8, abs=0.01)
    assert DRAFTING.share_of_limit(drafting) is None


def test_a_point_is_the_window_in_which_all_decode() -> None:
    finish = Finish(FinishReason.LENGTH, Usage(10, 5), Timing(0, 1, 2), Acceptance(4, 12, 0))

    def stream(first: float, step: float) -> Stream:
        return Stream([(first + step * at, (7,)) for at in range(5)], finish)

    run = Run(0.0, (stream(0.1, 0.1), stream(0.2, 0.1)))
    found = point_of([run], (2, 10, 5), 2)
    assert (found.seconds, found.tokens) == (pytest.approx(0.3), 6)
    assert found.ttft_ms == Quantiles(pytest.approx(100), pytest.approx(200), pytest.approx(200))
    assert found.tpot_ms.p50 == pytest.approx(100)
    assert found.kv_tokens == 25
    with pytest.raises(EngineError, match="never decoded together"):
        point_of([Run(0.0, (stream(0.1, 0.1), stream(9.0, 0.1)))], (2, 10, 5), 2)


@pytest.mark.parametrize(("steps", "median"), [([0.1], 0.1), ([0.1, 0.3], 0.3), ([3, 1, 2], 2)])
def test_a_point_is_the_run_of_median_speed_and_of_two_the_slower(
    steps: list[float], median: float
) -> None:
    def run(step: float) -> Run:
        accepted = round(10 * step)
        finish = Finish(
            FinishReason.LENGTH, Usage(10, 5), Timing(0, 1, 2), Acceptance(10, 30, accepted)
        )
        return Run(0.0, (Stream([(step * at, (7,)) for at in range(1, 6)], finish),))

    found = point_of([run(step) for step in steps], (1, 10, 5), 1)
    assert found.tokens_per_s_per_user == pytest.approx(1 / median)
    assert found.acceptance_length == pytest.approx(1 + median)


def test_only_those_that_run_hold_anything() -> None:
    finish = Finish(FinishReason.LENGTH, Usage(10, 4), Timing(0, 1, 2))
    streams = [Stream([(first + at, (7,)) for at in range(4)], finish) for first in (0, 0, 5, 5)]
    assert point_of([Run(0.0, tuple(streams))], (4, 10, 4), 2).kv_tokens == 24


def test_points_that_hold_as_much_tell_nothing_of_the_cache() -> None:
    other = replace(point(1, 5.5, prompt=130), output_tokens=40, kv_tokens=150.0)
    assert latency_curve(results("plain", point(1, 5.0), other)).kv_ms_per_1k_tokens == 0


def test_the_curve_parts_batch_cache_and_prefill() -> None:
    long = [point(1, 5.2, prompt=1100, ttft=120.0), point(8, 7.85, prompt=1100)]
    curve = latency_curve(results("plain", *PLAIN.points, *long))
    assert curve.kv_ms_per_1k_tokens == pytest.approx(0.2, rel=0.05)
    assert [p.tpot_ms for p in curve.points] == pytest.approx(
        [5.0 - 0.03, 6.25 - 0.24, 10.0 - 1.92], rel=0.01
    )
    assert curve.prefill_tokens_per_s == pytest.approx(10_000)
    assert curve.prefill_ms == pytest.approx(10.0 - 4.97, abs=0.05)
    assert (curve.source, curve.acceptance_length) == ("measured", 1.0)


@given(st.lists(st.floats(0.01, 1e3), max_size=12))
def test_rising_values_rise_and_keep_their_mean(values: list[float]) -> None:
    found = rising(values)
    assert all(left <= right + 1e-9 for left, right in pairwise(found))
    assert sum(found) == pytest.approx(sum(values))
    assert rising(sorted(values)) == pytest.approx(sorted(values))


def test_a_sweep_leaves_out_what_the_profile_cannot_hold() -> None:
    limits = Limits(context_tokens=100, max_batch=2, max_queue=1, admit=2)
    possible, impossible = ProfileSweep([1, 3, 4], [50, 90], [20]).places(limits)
    assert possible == [(1, 50, 20), (3, 50, 20)]
    assert len(impossible) == 4


def test_the_frontier_names_who_beats_whom() -> None:
    points = operating_points([PLAIN, DRAFTING, SLOW])
    best = {(o.results.profile, o.point.batch) for o in points if not o.beaten_by}
    assert best == {("drafting", 1), ("drafting", 8), ("plain", 64)}
    text = report(points, break_evens([PLAIN, DRAFTING, SLOW]))
    assert "slow: dominated everywhere, by drafting, plain" in text
    assert "plain: on the frontier at batch 64" in text


def test_speculation_breaks_even_earlier_at_a_lower_acceptance() -> None:
    evens = {e.acceptance: e.batch for e in break_evens([PLAIN, DRAFTING]) if e.plain == "plain"}
    assert evens[1.5] == pytest.approx(1.0, abs=0.2)
    assert evens[2.0] < evens[2.5] < evens[3.0]


def test_only_points_of_the_same_lengths_are_compared() -> None:
    other = results("other", point(1, 1.0, prompt=7))
    assert {o.results.profile for o in operating_points([PLAIN, other])} == {"plain"}


def test_lengths_that_all_have_are_compared_though_some_have_shorter_ones() -> None:
    other = results("other", point(1, 1.0))
    more = results("more", point(1, 2.0, prompt=7), point(1, 3.0))
    found = operating_points([more, other])
    assert {(o.results.profile, o.point.prompt_tokens) for o in found} == {
        ("more", 100),
        ("other", 100),
    }


def frontier(folder: Path, *found: ProfileResults, more: tuple[str, ...] = ()) -> int:
    paths = [folder / f"{number}.json" for number in range(len(found))]
    for path, each in zip(paths, found, strict=True):
        each.save(path)
    return main(["frontier", *map(str, paths), *more])


def test_profiles_of_two_models_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frontier(tmp_path, PLAIN, replace(SLOW, model="small")) == 1
    assert "plain is of big; slow is of small" in capsys.readouterr().err


def test_one_profile_on_one_gpu_and_on_two_is_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frontier(tmp_path, PLAIN, replace(PLAIN, gpus=2.0)) == 0
    said = capsys.readouterr().out
    assert "plain on 1 GPU" in said
    assert "plain on 2 GPUs: dominated everywhere, by plain on 1 GPU" in said
    assert frontier(tmp_path, PLAIN, PLAIN) == 1
    assert "two files are of the same profile" in capsys.readouterr().err


def test_who_was_not_compared_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert frontier(tmp_path, PLAIN, results("other", point(1, 1.0, prompt=7))) == 0
    assert "100 prompt and 100 output tokens: other" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["frontier.xyz", "nowhere/frontier.png"])
def test_a_picture_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    pytest.importorskip("matplotlib")
    assert frontier(tmp_path, PLAIN, more=("--picture", str(tmp_path / name))) == 1
    assert f"{name}: cannot be written" in capsys.readouterr().err


def test_the_limit_is_of_memory_without_drafting() -> None:
    points = operating_points([PLAIN, DRAFTING])
    ((label, line),) = limits(points).items()
    assert label == "limit of 4.0 TB/s, as plain"
    assert line[0] == (pytest.approx(249.8, abs=0.5), pytest.approx(249.8, abs=0.5))
    assert "measured on a GPU" in title(points)


def test_the_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    files = []
    for each in (PLAIN, DRAFTING):
        each.save(tmp_path / f"{each.profile}.json")
        files.append(str(tmp_path / f"{each.profile}.json"))
    assert main(["frontier", *files, "--picture", str(tmp_path / "frontier.svg")]) == 0
    assert "speculation pays up to batch" in capsys.readouterr().out
    assert (tmp_path / "frontier.svg").read_text().startswith("<?xml")


def test_a_curve_is_a_profiles_own_document() -> None:
    text = yaml.safe_dump(latency_curve(PLAIN).model_dump(mode="json"))
    assert LatencyCurve.model_validate(yaml.safe_load(text)) == latency_curve(PLAIN)
