"""Prompts of a wanted length, cut from a text at the beginnings of its paragraphs."""

from __future__ import annotations

import random
import re
from bisect import bisect_left
from pathlib import Path

from tokenizers import Tokenizer

PARAGRAPH = re.compile(r"(?:\A|\n\n+)(?=\S)")


class PromptSource:
    """Cuts prompts from one text. The same seed gives the same prompts in the same order.

    A prompt begins with a paragraph as long as the text goes on for long enough after it. No
    paragraph begins a second prompt before each has begun one, so that a prefix cache finds in a
    prompt only what a user's own repetition would leave there.
    """

    def __init__(self, text: str, tokenizer: Tokenizer, seed: int) -> None:
        """Raises ValueError for a text without a paragraph."""
        encoding = tokenizer.encode(text, add_special_tokens=False)
        self._text = text
        self._ids: list[int] = encoding.ids
        self._offsets: list[tuple[int, int]] = encoding.offsets
        starts = [start for start, _ in self._offsets]
        self._paragraphs = [bisect_left(starts, m.end()) for m in PARAGRAPH.finditer(text)]
        if not self._ids or not self._paragraphs:
            raise ValueError("the text holds no paragraph to begin a prompt with")
        self._random = random.Random(seed)  # noqa: S311 (a workload, not a secret)
        self._unused: list[int] = []

    def ids(self, tokens: int) -> tuple[int, ...]:
        """The next prompt as token ids, exactly that many. Raises ValueError if the text is shorter."""
        start = self._next_start(tokens)
        return tuple(self._ids[start : start + tokens])

    def text(self, tokens: int) -> str:
        """The next prompt as text, about that many tokens when it is tokenized again."""
        start = self._next_start(tokens)
        first, last = self._offsets[start][0], self._offsets[start + tokens - 1][1]
        return self._text[first:last]

    def _next_start(self, tokens: int) -> int:
        if not 1 <= tokens <= len(self._ids):
            raise ValueError(f"a prompt of {tokens} tokens from a text of {len(self._ids)}")
        if not self._unused:
            self._unused = list(self._paragraphs)
            self._random.shuffle(self._unused)
        return min(self._unused.pop(), len(self._ids) - tokens)


def read_prompts(text: Path, model: Path, seed: int) -> PromptSource:
    """Prompts from a text file with the tokenizer of a model folder."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    return PromptSource(text.read_text(encoding="utf-8"), tokenizer, seed)
