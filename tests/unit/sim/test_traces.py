"""Traces as they are published, and what is said of those that cannot be read."""

from __future__ import annotations

import gzip
import itertools
import statistics
from pathlib import Path

import pytest

from paretoserve.sim.traces import Source, TraceError, TraceRequest, read, synthetic

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:47.0000000,879,0
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1100, "output_length": 500, "hash_ids": [0, 1, 2]}

{"timestamp": 3000, "input_length": 600, "output_length": 1, "hash_ids": [0, 9]}
"""
SERVEGEN = """timestamp_s,client_id,input_tokens,output_tokens
5.5,143,659,3
6.25,117,460,311
"""


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def test_azure_is_put_in_order_and_counted_from_its_first_request(tmp_path: Path) -> None:
    rows = read(written(tmp_path, AZURE, "azure.csv.gz"))
    assert [(row.prompt_tokens, row.output_tokens) for row in rows] == [
        (374, 44),
        (879, 1),
        (396, 109),
    ]
    assert [row.at_s for row in rows] == pytest.approx([0.0, 0.31941, 4.314579], abs=1e-6)


def test_servegen_brings_its_clients(tmp_path: Path) -> None:
    assert read(written(tmp_path, SERVEGEN)) == [
        TraceRequest(0.0, 659, 3, "143"),
        TraceRequest(0.75, 460, 311, "117"),
    ]


def test_mooncake_brings_blocks_and_each_request_stays_in_its_bucket(tmp_path: Path) -> None:
    path = written(tmp_path, MOONCAKE, "trace.jsonl")
    first, second = read(path, seed=1)
    assert (first.blocks, second.blocks) == ((0, 1, 2), (0, 9))
    assert (first.at_s, second.prompt_tokens, second.output_tokens) == (0.0, 600, 1)
    gaps = {read(path, seed=seed)[1].at_s for seed in range(20)}
    assert len(gaps) == 20
    assert all(0 < gap < 6 for gap in gaps)
    assert read(path, seed=1) == [first, second]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "line 1: is none of the known formats: TIMESTAMP"),
        (AZURE.splitlines()[0], "has no requests"),
        (AZURE + "yesterday,1,2\n", "line 5: .*yesterday.*expected TIMESTAMP,ContextTokens"),
        (AZURE + "2023-11-16 18:15:47.0,12\n", "line 5: has 2 fields; expected TIMESTAMP"),
        (AZURE + "2023-11-16 18:15:47.0,-3,2\n", "line 5: a number of tokens is negative"),
        (SERVEGEN + "1.0,c,many,2\n", "line 4: .*'many'.*expected timestamp_s,client_id"),
        (SERVEGEN + "nan,c,1,2\n", "line 4: time nan is out of range"),
        (MOONCAKE + '{"timestamp": 0}\n', "line 4: has no 'hash_ids'; expected timestamp"),
        (MOONCAKE + "{broken\n", "line 4: .*expected timestamp, input_length"),
        (MOONCAKE + "7\n", "line 4: "),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(TraceError, match=f"trace.csv.*{complaint}"):
        read(written(tmp_path, text))


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere.csv: cannot be read"):
        read(tmp_path / "nowhere.csv")
    whole = written(tmp_path, AZURE, "cut.csv.gz").read_bytes()
    (tmp_path / "cut.csv.gz").write_bytes(whole[:-20])
    with pytest.raises(TraceError, match=r"cut.csv.gz.*cannot be read"):
        read(tmp_path / "cut.csv.gz")


def test_synthetic_clients_have_their_rates_lengths_and_bursts() -> None:
    calm = Source("calm", rate=20, prompt_tokens=300, output_tokens=50, output_spread=0.0)
    bursty = Source("bursty", rate=5, variation=3.0)
    rows = synthetic([calm, bursty], duration_s=1000, seed=4)
    assert [row.at_s for row in rows] == sorted(row.at_s for row in rows)
    by_client = {name: [r for r in rows if r.client == name] for name in ("calm", "bursty")}
    assert len(by_client["calm"]) == pytest.approx(20_000, rel=0.05)
    assert len(by_client["bursty"]) == pytest.approx(5_000, rel=0.2)
    assert statistics.median(r.prompt_tokens for r in by_client["calm"]) == pytest.approx(
        300, rel=0.05
    )
    assert {row.output_tokens for row in by_client["calm"]} == {50}
    for name, variation in (("calm", 1.0), ("bursty", 3.0)):
        times = [row.at_s for row in by_client[name]]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        found = statistics.pstdev(gaps) / statistics.mean(gaps)
        assert found == pytest.approx(variation, rel=0.15)


def test_a_clients_requests_do_not_depend_on_the_others() -> None:
    one, other = Source("one", rate=3), Source("other", rate=9)
    together = [row for row in synthetic([one, other], 50, seed=2) if row.client == "one"]
    assert together == synthetic([one], 50, seed=2)


def test_a_synthetic_rate_is_above_zero() -> None:
    with pytest.raises(ValueError, match="client idle: rate"):
        synthetic([Source("idle", rate=0)], 1)
