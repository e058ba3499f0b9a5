"""What the terminal shows while the demo runs: live tables, or plain lines where it is no terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from time import perf_counter

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from paretoserve.app.demo.board import HEADINGS, PROFILE_HEADINGS, Board

LIVE_EVERY_S = 0.5
LINE_EVERY_S = 10.0


class Display:
    """The demo's one way to say something. Every line carries the seconds since the start."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._began = perf_counter()

    @property
    def seconds(self) -> float:
        return perf_counter() - self._began

    def step(self, title: str) -> None:
        """A new part of the demo begins."""
        self._console.print(Text(f"[{self.seconds:5.1f} s] {title}", style="bold"), soft_wrap=True)

    def say(self, line: str) -> None:
        """Something worth a line happened."""
        self._console.print(Text(f"          {line}"), soft_wrap=True)

    def plain(self, text: str) -> None:
        """Text as it is, such as the report."""
        self._console.print(Text(text), soft_wrap=True)

    @contextlib.asynccontextmanager
    async def following(self, board: Board) -> AsyncIterator[None]:
        """Show `board` as it changes, until the block ends."""
        show = self._live if self._console.is_terminal else self._lines
        task = asyncio.create_task(show(board))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _live(self, board: Board) -> None:
        began = perf_counter()
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(_tables(board, perf_counter() - began), refresh=True)
                await asyncio.sleep(LIVE_EVERY_S)

    async def _lines(self, board: Board) -> None:
        began = perf_counter()
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            for line in status_lines(board, perf_counter() - began):
                self.say(line)


def status_lines(board: Board, seconds: float) -> list[str]:
    """The board in a few plain lines."""
    lines = [f"{seconds:.0f} s into the replay, {board.sent} of {board.expected} requests sent"]
    for name, sent, running, done, rejected, failed, *times in board.tier_rows():
        lines.append(
            f"  {name}: {sent} sent, {running} running, {done} done, {rejected} rejected, "
            f"{failed} failed; TTFT p50 {times[0]} p95 {times[1]} ms (target {times[2]}), "
            f"TPOT p50 {times[3]} p95 {times[4]} ms (target {times[5]})"
        )
    for name, batch, waiting, rate, acceptance in board.profile_rows(seconds):
        lines.append(
            f"  {name}: {rate} tokens/s, batch {batch}, {waiting} waiting, {acceptance} tokens/step"
        )
    return lines


def _tables(board: Board, seconds: float) -> Group:
    title = f"{seconds:.0f} s into the replay, {board.sent} of {board.expected} requests sent"
    return Group(
        _table(HEADINGS, board.tier_rows(), f"{title} (milliseconds)"),
        _table(PROFILE_HEADINGS, board.profile_rows(seconds), ""),
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(title=title or None, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table
