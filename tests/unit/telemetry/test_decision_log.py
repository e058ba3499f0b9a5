"""The decision log: what a row holds and does not, what rotation keeps, what a crash leaves."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.decisions import TENANTS, policy, rows

from paretoserve.domain.prediction import Prediction
from paretoserve.domain.replica import ReplicaState, Snapshot
from paretoserve.domain.request import Request
from paretoserve.domain.targets import Targets
from paretoserve.telemetry import decision_codec as codec
from paretoserve.telemetry.decision_codec import SchemaError, decode, encode
from paretoserve.telemetry.decision_files import RotatingFiles, log_files
from paretoserve.telemetry.decision_log import DecisionLog, Pseudonyms, sample_weight
from paretoserve.telemetry.decision_memory import MOST_SEEN, DecisionMemory
from paretoserve.telemetry.decision_reader import DecisionLogReader
from paretoserve.telemetry.decision_row import CANCELLED, DecisionRow, Result
from paretoserve.telemetry.decision_settings import DecisionLogSettings

DOCUMENT = Path(__file__).parents[3] / "docs/decision-log.md"


def settings(folder: Path, **changes: Any) -> DecisionLogSettings:
    return DecisionLogSettings(path=str(folder), **changes)


def line_of(row: DecisionRow) -> str:
    return encode(row, row.weight, lambda identifier: identifier)


# A row.


def test_every_logged_decision_can_be_made_again_exactly() -> None:
    decider, tenants = policy(), {tenant.name: tenant for tenant in TENANTS}
    for row in rows(1, 60):
        read = decode(line_of(row))
        again = decider.decide(read.request, tenants[read.request.tenant], read.snapshot, read.now)
        assert replace(again, candidates=()) == replace(row.decision, candidates=())
        assert tuple(again.candidates) == tuple(row.decision.candidates)


def test_what_was_decided_and_what_came_of_it_is_read_back() -> None:
    for row in rows(2, 60):
        read = decode(line_of(row))
        assert (read.time, read.gateway, read.now) == (row.time, row.gateway, row.now)
        assert read.result == row.result
        assert read.request == replace(row.request, blocks=())
        assert read.snapshot.residuals == row.snapshot.residuals
        told = ("candidates", "chosen")
        for field in (field.name for field in fields(row.decision) if field.name not in told):
            assert getattr(read.decision, field) == getattr(row.decision, field), field
        for ours, theirs in zip(read.decision.candidates, row.decision.candidates, strict=True):
            assert ours[:3] == theirs[:3]
            assert ours.price == pytest.approx(theirs.price, abs=1e-6)
            assert ours.prediction == pytest.approx(theirs.prediction, abs=1e-3)


def test_unbounded_predictions_and_profiles_without_replicas_are_read_back() -> None:
    row = next(row for row in rows(3, 20) if row.decision.chosen)
    candidates = list(row.decision.candidates)
    infinite = Prediction(*[math.inf] * len(Prediction._fields))
    candidates[0] = candidates[0]._replace(prediction=infinite, price=math.inf, replica_id="")
    candidates[1] = candidates[1]._replace(prediction=None)
    row = replace(row, decision=replace(row.decision, candidates=candidates, chosen=None))
    first, second, *_ = decode(line_of(row)).decision.candidates
    assert (first.prediction, first.price, first.replica_id) == (infinite, math.inf, "")
    assert second.prediction is None


@pytest.mark.parametrize(
    ("targets", "written"),
    [
        (Targets(300, 2, tpot_from_tokens=16), [300, 2, None, 16]),
        (Targets(e2e_ms=4000), [None, None, 4000]),  # as in logs from before there was a length
    ],
)
def test_targets_are_read_back(targets: Targets, written: list[float | None]) -> None:
    row = rows(3, 1)[0]
    line = line_of(replace(row, decision=replace(row.decision, targets=targets)))
    assert json.loads(line)["targets"] == written
    assert decode(line).decision.targets == targets


def test_an_empty_fleet_is_read_back() -> None:
    row = rows(4, 1)[0]
    row = replace(
        row,
        snapshot=Snapshot((), 1001.0),
        decision=replace(row.decision, candidates=(), chosen=None),
    )
    read = decode(line_of(row))
    assert read.snapshot == row.snapshot
    assert read.decision.candidates == ()


def test_every_field_is_either_logged_or_left_out_on_purpose() -> None:
    replica = {field.name for field in fields(ReplicaState)}
    columns = {"replica_id", *codec.WORDS, *codec.NUMBERS, codec.TIGHTEST}
    assert columns | set(codec.REPLICA_NOT_LOGGED) == replica
    request = {field.name for field in fields(Request)}
    apart = {"request_id", "session_id", "excluded_replicas", "cached", "estimate"}
    assert {*codec.REQUEST_PLAIN, *apart, *codec.REQUEST_NOT_LOGGED} == request


def test_nothing_that_a_client_wrote_is_in_a_row() -> None:
    row = next(row for row in rows(5, 50) if row.request.session_id)
    row = replace(row, request=replace(row.request, request_id="order-of-jane-doe"))
    line = encode(row, 1.0, Pseudonyms().of)
    assert "person" not in line
    assert "jane" not in line
    assert "blocks" not in line
    assert "10.0.0." not in line


@pytest.mark.parametrize(
    "when",
    [
        "fleet[session.id].load > 1.0",
        "session.id.matches(session.id)",
        "int(session.id) > 1",
        "fleet[request.model + session.id].held > 1",
    ],
)
def test_a_rule_that_fails_on_what_a_client_wrote_does_not_repeat_it(when: str) -> None:
    decider, row = policy(rules=[{"name": "by-session", "when": when, "weigh": {"fast": 2}}]), rows(19, 1)[0]  # fmt: skip
    request = replace(row.request, session_id="jane.doe@example.org (")
    decision = decider.decide(request, TENANTS[0], row.snapshot, row.now)
    assert decision.rule_errors == ("by-session",)
    line = encode(replace(row, request=request, decision=decision), 1.0, Pseudonyms().of)
    assert "by-session" in line
    assert "jane" not in line


def test_pseudonyms_are_equal_for_equals_and_keep_our_own_ids() -> None:
    pseudonyms = Pseudonyms()
    assert pseudonyms.of("jane") == pseudonyms.of("jane") != pseudonyms.of("john")
    assert Pseudonyms().of("jane") != pseudonyms.of("jane")
    assert pseudonyms.of("0" * 32) == "0" * 32


def test_a_row_of_64_replicas_takes_at_most_16_kilobytes_and_a_third_of_it_compressed() -> None:
    lines = [line_of(row) for row in rows(6, 20, replicas=64)]
    assert max(map(len, lines)) < 16_000
    assert len(gzip.compress("\n".join(lines).encode())) < sum(map(len, lines)) * 0.45


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"v":2}', "schema version 2; this program reads 1"),
        ("[]", "schema version None"),
        ('{"v":1,"time":3}', "does not follow schema 1: KeyError"),
    ],
)
def test_a_row_of_another_schema_is_refused(line: str, reason: str) -> None:
    with pytest.raises(SchemaError, match=reason):
        decode(line)


def test_the_document_describes_every_key_and_no_other() -> None:
    """Tables of docs/decision-log.md: a section for each part of a row, a line for each key."""
    described: dict[str, set[str]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("### `"):
            section = described.setdefault(line.split("`")[1], set())
        elif line.startswith("| `") and described:
            section |= set(line.split("|")[1].replace("`", "").replace(" ", "").split(","))
    found = {"row": set[str](), **{name: set[str]() for name in described}}
    for row in rows(7, 60):
        value = json.loads(line_of(row))
        found["row"] |= set(value)
        for part in ("request", "result", "fleet", "candidates"):
            found[part] |= set(value[part])
    found["request"] |= set(codec.REQUEST_PLAIN)
    assert described == found


# Sampling.


def test_a_sample_is_a_function_of_the_request_id_and_weights_make_up_for_it() -> None:
    likely = replace(rows(8, 1)[0].decision, propensity=0.99)
    weights = [sample_weight(f"{at:032x}", likely, 0.1) for at in range(20_000)]
    assert weights == [sample_weight(f"{at:032x}", likely, 0.1) for at in range(20_000)]
    assert set(weights) == {0.0, 10.0}
    assert sum(weights) == pytest.approx(20_000, rel=0.1)
    assert sample_weight("any", likely, 1.0) == 1.0


def test_what_exploration_chose_is_always_kept() -> None:
    explored = replace(rows(8, 1)[0].decision, propensity=0.005)
    assert {sample_weight(f"{at:032x}", explored, 0.01) for at in range(100)} == {1.0}


# Files.


class Clock:
    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = rows(9, 50)
    log = DecisionLog(settings(tmp_path / "new folder"), "gw/1")
    for row in written:
        log.write(row)
    log.close()
    assert (log.written, log.dropped) == (50, 0)
    reader = DecisionLogReader(tmp_path / "new folder")
    assert [row.result for row in reader] == [row.result for row in written]
    assert reader.skipped == 0


def test_a_queue_that_is_full_drops_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paretoserve.telemetry.decision_log.QUEUE_ROWS", 3)
    monkeypatch.setattr("paretoserve.telemetry.decision_log.FLUSH_S", 60.0)
    log = DecisionLog(settings(tmp_path), "gw")
    for row in rows(10, 5):
        log.write(row)
    assert log.dropped == 2
    log.close()
    log.write(rows(10, 1)[0])
    assert (log.written, log.dropped) == (3, 3)


def test_a_disk_that_refuses_loses_rows_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = DecisionLog(settings(tmp_path / "log"), "gw")
    (tmp_path / "log" / "decisions-gw.open.jsonl").mkdir()
    log.write(rows(11, 1)[0])
    log.close()
    assert (log.written, log.dropped) == (0, 1)
    assert "cannot be written" in caplog.text


def test_files_are_closed_by_size_and_the_oldest_dropped(tmp_path: Path) -> None:
    clock = Clock(1_767_225_600.0)
    small = settings(tmp_path, max_bytes=2**16, keep_files=2, compress=False)
    files = RotatingFiles(small, "gw", clock)
    for number in range(5):
        files.append(b"%d" % number * 2**15 + b"\n")
        files.append(b"%d" % number * 2**15 + b"\n")
        files.tick()
        clock.at += 1
    names = [path.name for path in log_files(tmp_path)]
    assert names == [
        "decisions-gw-20260101T000003.000Z.jsonl",
        "decisions-gw-20260101T000004.000Z.jsonl",
    ]
    assert (tmp_path / names[0]).read_bytes().startswith(b"3")


def test_files_are_closed_by_age_and_compressed(tmp_path: Path) -> None:
    clock = Clock(1_767_225_600.0)
    files = RotatingFiles(settings(tmp_path, max_age_s=60), "gw", clock)
    files.append(b"{}\n")
    clock.at += 59
    files.tick()
    assert [path.name for path in log_files(tmp_path)] == ["decisions-gw.open.jsonl"]
    clock.at += 1
    files.tick()
    (closed,) = log_files(tmp_path)
    assert closed.name == "decisions-gw-20260101T000100.000Z.jsonl.gz"
    assert gzip.decompress(closed.read_bytes()) == b"{}\n"


def test_two_files_closed_in_one_millisecond_both_stay(tmp_path: Path) -> None:
    files = RotatingFiles(settings(tmp_path, max_age_s=1e-9), "gw", Clock(1_767_225_600.0))
    for _ in range(3):
        files.append(b"{}\n" * 30_000)
        files._close()
    assert len(log_files(tmp_path)) == 3


def test_a_gateway_counts_the_closed_files_of_all_and_touches_no_open_one(tmp_path: Path) -> None:
    clock = Clock(1_767_225_600.0)
    one = settings(tmp_path, keep_files=1, compress=False, max_age_s=60)
    other = RotatingFiles(one, "other", clock)
    other.append(b"{}\n")
    other._close()
    other.append(b"{}\n")
    mine = RotatingFiles(one, "mine", clock)
    mine.append(b"{}\n")
    clock.at += 60
    mine.tick()
    assert [path.name for path in log_files(tmp_path)] == [
        "decisions-mine-20260101T000100.000Z.jsonl",
        "decisions-other.open.jsonl",
    ]


def test_a_torn_line_is_skipped_and_counted(tmp_path: Path) -> None:
    lines = [line_of(row) for row in rows(12, 3)]
    open_file = tmp_path / "decisions-gw.open.jsonl"
    open_file.write_text("\n".join([*lines[:2], lines[2][:-40]]), encoding="utf-8")
    reader = DecisionLogReader(tmp_path)
    assert len(list(reader)) == 2
    assert reader.skipped == 1


def test_a_new_process_begins_a_new_file_after_a_crash(tmp_path: Path) -> None:
    first, second = rows(13, 2)
    crashed = tmp_path / "decisions-gw.open.jsonl"
    crashed.write_text(line_of(first)[:-9], encoding="utf-8")
    (tmp_path / "decisions-gw-20260101T000000.000Z.jsonl.gz.part").write_bytes(b"half")
    log = DecisionLog(settings(tmp_path), "gw")
    log.write(second)
    log.close()
    reader = DecisionLogReader(tmp_path)
    assert [row.result for row in reader] == [second.result]
    assert reader.skipped == 1
    assert not list(tmp_path.glob("*.part"))


def test_a_crash_between_compressing_and_removing_leaves_no_row_twice(tmp_path: Path) -> None:
    name = "decisions-gw-20260101T000000.000Z.jsonl"
    line = line_of(rows(14, 1)[0]) + "\n"
    (tmp_path / name).write_text(line, encoding="utf-8")
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(line.encode()))
    assert len(list(DecisionLogReader(tmp_path))) == 1


def test_a_row_of_another_schema_is_named_with_its_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"v":9}\n', encoding="utf-8")
    with pytest.raises(SchemaError, match=r"rows\.jsonl:2: row of schema version 9"):
        list(DecisionLogReader(path))


def test_a_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no decision log; give a file, or a folder"):
        DecisionLogReader(tmp_path)


def test_it_is_off_unless_a_folder_is_named() -> None:
    assert DecisionLogSettings().off
    assert not DecisionLogSettings(path="x").off


# What a decision saw, until its request has ended.


def test_the_first_decision_that_does_not_hold_is_remembered_once() -> None:
    first, other = rows(15, 2)
    memory = DecisionMemory(policy(), clock=lambda: 5.0)
    tenant = next(tenant for tenant in TENANTS if tenant.name == first.request.tenant)
    decision = memory.decide(first.request, tenant, first.snapshot, first.now)
    assert decision == first.decision
    memory.decide(replace(first.request, generated=7), tenant, replace(other.snapshot), other.now)
    seen = memory.take(first.request.request_id)
    assert seen is not None
    assert seen.row("gw", Result(CANCELLED)) == DecisionRow(
        5.0, "gw", first.request, first.snapshot, first.now, first.decision, Result(CANCELLED)
    )
    assert memory.take(first.request.request_id) is None


def test_a_decision_to_hold_is_not_remembered() -> None:
    memory = DecisionMemory(policy())
    row = rows(16, 1)[0]
    request = replace(row.request, tier="batch", waited_ms=0.0)
    assert memory.decide(request, TENANTS[0], Snapshot((), 1001.0), row.now).hold_s is not None
    assert memory.take(request.request_id) is None


def test_more_at_a_time_than_are_kept_are_counted_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert MOST_SEEN > 1000
    monkeypatch.setattr("paretoserve.telemetry.decision_memory.MOST_SEEN", 2)
    memory, seen = DecisionMemory(policy()), rows(17, 4)
    for row in seen:
        memory.decide(row.request, TENANTS[0], row.snapshot, row.now)
    lost = [memory.take(row.request.request_id) is None for row in seen]
    assert lost == [True, True, False, False]
    assert memory.forgotten == 2
    assert [r.message for r in caplog.records] == [
        "more than 2 requests run at a time: the oldest ones get no row in the decision log"
    ]


def test_what_is_only_previewed_is_not_remembered() -> None:
    memory, row = DecisionMemory(policy()), rows(18, 1)[0]
    told = memory.preview(row.request, TENANTS[0], row.snapshot, row.now)
    assert memory.take(row.request.request_id) is None
    assert told == memory.decide(row.request, TENANTS[0], row.snapshot, row.now)
