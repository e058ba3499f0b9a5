"""From tokens to text, piece by piece: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
MAX_HELD_TOKENS = 32
"""A character has at most four bytes and so spans at most four tokens that carry text; more are
only held where every token begins one character and ends another."""


class StreamDecoder:
    """Decodes a stream of token ids into text whose concatenation is the decoding of them all.

    A token of a byte-level vocabulary may end in the middle of a character, which `decode` shows
    as a trailing U+FFFD: such text is held back until it completes. A decoder may also treat the
    beginning of a text specially (strip its space), so the tokens given out last are decoded
    again in front of new ones. Only these two groups are ever decoded: the cost of a token does
    not depend on how many came before it.

    `decode` takes token ids and replaces bytes that are no UTF-8 by U+FFFD, one for each maximal
    part of a sequence that cannot go on (Python's and Rust's lossy decoding both do). A decoder
    that judges a whole run of byte tokens at once (byte fallback) gives the same text for every
    run that is valid UTF-8.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._context_text = ""
        self._held: list[int] = []

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete; "" while there is none."""
        if not token_ids:
            return ""
        self._held.extend(token_ids)
        text = self._text_of(self._held)
        if not text:
            self._held.clear()
            return ""
        if not text.endswith(REPLACEMENT) or len(self._held) > MAX_HELD_TOKENS + len(token_ids):
            return self._give_out(len(self._held), text)
        return self._give_out_before_tail(text)

    def flush(self) -> str:
        """What is still held, with U+FFFD for a character that never completed."""
        return self._give_out(len(self._held), self._text_of(self._held)) if self._held else ""

    def _give_out_before_tail(self, text: str) -> str:
        """Keep the fewest tokens that the open character may lie in, give out those before."""
        for kept in range(1, min(4, len(self._held))):
            count = len(self._held) - kept
            before, tail = self._text_of(self._held[:count]), self._decode(self._held[count:])
            # Cutting inside a character turns it into more U+FFFD than it is when left whole.
            if before and tail and before + tail == text:
                return self._give_out(count, before)
        return ""

    def _give_out(self, count: int, text: str) -> str:
        self._context = self._held[:count]
        self._context_text = self._decode(self._context)
        del self._held[:count]
        return text

    def _text_of(self, token_ids: Sequence[int]) -> str:
        """The text that `token_ids` add behind the context."""
        if not self._context:
            return self._decode(token_ids)
        whole = self._decode([*self._context, *token_ids])
        if whole.startswith(self._context_text):
            return whole[len(self._context_text) :]
        return self._decode(token_ids)


class StopMatcher:
    """Finds the first stop string in a text that arrives in pieces.

    The match that ends first wins, as it would if the text came one character at a time; of
    those that end at the same character, the longest. Text is held back only while it may be the
    beginning of a stop string. The result does not depend on how the text was cut into pieces.

    One Knuth-Morris-Pratt automaton per stop string: constant work per character and string,
    however long the strings are and whatever the text.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises ValueError for an empty stop string."""
        if not all(stops):
            raise ValueError("a stop string must have at least one character")
        self._stops = tuple(dict.fromkeys(sorted(stops, key=len, reverse=True)))
        self._fallbacks = tuple(_fallbacks(stop) for stop in self._stops)
        self._first = frozenset(stop[0] for stop in self._stops)
        self._states = [0] * len(self._stops)
        self._held = ""
        self._matched: str | None = None

    def push(self, text: str) -> tuple[str, str | None]:
        """(text that is safe to show, the stop string that was found or None).

        The safe text of a match ends where the stop string begins; after it, everything is
        swallowed.
        """
        if self._matched is not None:
            return "", self._matched
        if not self._held and self._first.isdisjoint(text):
            return text, None
        whole = self._held + text
        for at in range(len(self._held), len(whole)):
            self._matched = self._step(whole[at])
            if self._matched is not None:
                self._held = ""
                return whole[: at + 1 - len(self._matched)], self._matched
        held = max(self._states)
        self._held = whole[len(whole) - held :]
        return whole[: len(whole) - held], None

    def flush(self) -> str:
        """What was held back, when the text has ended without completing a stop string."""
        held, self._held = self._held, ""
        self._states = [0] * len(self._stops)
        return held

    def _step(self, char: str) -> str | None:
        """Advance every automaton by one character; the longest stop string that this ends."""
        found = None
        for index, stop in enumerate(self._stops):
            state, fallbacks = self._states[index], self._fallbacks[index]
            while state and stop[state] != char:
                state = fallbacks[state - 1]
            state += stop[state] == char
            if state == len(stop):
                found = found or stop
                state = fallbacks[state - 1]
            self._states[index] = state
        return found


def _fallbacks(stop: str) -> tuple[int, ...]:
    """For each prefix of `stop`, the length of its longest proper prefix that is also its suffix."""
    lengths = [0] * len(stop)
    length = 0
    for at in range(1, len(stop)):
        while length and stop[at] != stop[length]:
            length = lengths[length - 1]
        length += stop[at] == stop[length]
        lengths[at] = length
    return tuple(lengths)
