"""How well output lengths are foreseen on a trace: `python benchmarks/lengths.py --trace PATH`.

Online, as a router would: each request is foreseen when it arrives, from the answers that had
ended by then (20 ms a token), and judged by its true length. A quantile's coverage is given as an
interval, the share of answers below it to the share at or below it: where many answers have one
length no number can have exactly half below. Loss is the pinball loss of ln(length), which only
the true quantile minimises. By client, against all clients as one, against the prior alone.

With `--cut N` every second answer is cut off at N tokens before it is learned from, and is still
judged by its true length: what telling cut answers from complete ones is worth.
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from paretoserve.latency.length import Lengths
from paretoserve.sim.traces import TraceRequest, read

TOKEN_S = 0.02
UNLIMITED = 1_000_000
RUNNING = (16, 64, 256, 1024)
MANY = 100
"""Requests that a client must have for its own coverage to say something."""


@dataclass
class Score:
    """Of one quantile: how many were foreseen, how many came out below it and at it, and the loss."""

    q: float
    count: int = 0
    below: int = 0
    at: int = 0
    loss: float = 0.0

    def add(self, foreseen: float, length: float) -> None:
        short = math.log(length) - math.log(foreseen)
        self.count += 1
        self.below += length < foreseen
        self.at += length == foreseen
        self.loss += max(self.q * short, (self.q - 1) * short)

    @property
    def coverage(self) -> tuple[float, float]:
        return self.below / self.count, (self.below + self.at) / self.count

    def off(self) -> float:
        """How far the quantile is outside the interval."""
        low, high = self.coverage
        return max(low - self.q, self.q - high, 0.0)

    def __str__(self) -> str:
        low, high = self.coverage
        return f"{low:.3f} to {high:.3f}, loss {self.loss / self.count:.3f}"


@dataclass
class Replay:
    """One way to learn from a trace, and how it came out."""

    name: str
    tenant: Callable[[TraceRequest], str]
    learns: bool = True
    tells_cut: bool = True
    lengths: Lengths = field(default_factory=Lengths)

    def run(self, rows: list[TraceRequest], cut: int) -> None:
        self.median, self.high = Score(0.5), Score(0.9)
        self.clients: dict[str, Score] = defaultdict(lambda: Score(0.9))
        self.running = {generated: Score(0.9) for generated in RUNNING}
        open_: list[tuple[float, int, str, int, bool]] = []
        for number, row in enumerate(rows):
            while open_ and open_[0][0] <= row.at_s:
                ended_at, _, tenant, tokens, limited = heapq.heappop(open_)
                self.lengths.observe(tenant, tokens, limited and self.tells_cut, ended_at)
            self._judge(row)
            tokens = min(row.output_tokens, cut) if number % 2 else row.output_tokens
            if self.learns:
                end = row.at_s + tokens * TOKEN_S
                limited = tokens < row.output_tokens
                heapq.heappush(open_, (end, number, self.tenant(row), tokens, limited))

    def _judge(self, row: TraceRequest) -> None:
        tenant, length = self.tenant(row), row.output_tokens
        median, high = self.lengths.estimate(tenant, UNLIMITED)
        self.median.add(median, length)
        self.high.add(high, length)
        self.clients[row.client].add(high, length)
        for generated, score in self.running.items():
            if length > generated:
                rest = self.lengths.remaining(tenant, generated, UNLIMITED, score.q)
                score.add(rest, length - generated)

    def report(self) -> None:
        print(f"{self.name}")
        print(f"  q50: {self.median}")
        print(f"  q90: {self.high}")
        known = {client: score for client, score in self.clients.items() if score.count >= MANY}
        if known:
            good = sum(score.off() <= 0.05 for score in known.values())
            worst = max(known, key=lambda client: known[client].off())
            low, high = known[worst].coverage
            print(
                f"  q90 of clients with {MANY} requests or more: {good} of {len(known)} within 5 "
                f"points; worst: client {worst or '-'}, {low:.3f} to {high:.3f}"
            )
        for generated, score in self.running.items():
            if score.count:
                print(f"  q90 of the rest after {generated} tokens ({score.count}): {score}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", type=Path, required=True, help="ServeGen, Azure or Mooncake")
    parser.add_argument("--cut", type=int, default=UNLIMITED, help="tokens (none)")
    args = parser.parse_args()
    rows = read(args.trace)
    print(f"{len(rows)} requests of {len({row.client for row in rows})} clients")
    replays = [
        Replay("by client", lambda row: row.client),
        Replay("all clients as one", lambda _: "all"),
        Replay("the prior alone", lambda _: "all", learns=False),
    ]
    if args.cut < UNLIMITED:
        replays.insert(1, Replay("by client, cut taken for complete", lambda row: row.client))
        replays[1].tells_cut = False
    for replay in replays:
        replay.run(rows, args.cut)
        replay.report()


if __name__ == "__main__":
    main()
