"""Streaming text equals looking at the whole, however the stream is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from paretoserve.domain.text import StopMatcher, StreamDecoder
from paretoserve.executor.tokenizer import Tokenizer

SCRIBE = Path(__file__).parents[2] / "deployments" / "local" / "models" / "scribe"
TOKENIZER = Tokenizer.load(SCRIBE)

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
AWKWARD = st.text(alphabet="aé€🙂\u0301\u200d👩👧\ufffd ▁\x00", max_size=40)
TEXTS = ANY_TEXT | AWKWARD
CUTS = st.lists(st.integers(1, 7), min_size=1, max_size=20)


def pieces(whole: Sequence[int], cuts: list[int]) -> Iterator[Sequence[int]]:
    at, turn = 0, 0
    while at < len(whole):
        size = cuts[turn % len(cuts)]
        yield whole[at : at + size]
        at, turn = at + size, turn + 1


def streamed(decoder: StreamDecoder, ids: Sequence[int], cuts: list[int]) -> str:
    return "".join(decoder.push(piece) for piece in pieces(ids, cuts)) + decoder.flush()


@given(text=TEXTS, cuts=CUTS)
def test_any_text_survives_encoding_and_streaming(text: str, cuts: list[int]) -> None:
    assert streamed(StreamDecoder(TOKENIZER.decode), TOKENIZER.encode(text), cuts) == text


@given(ids=st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=60), cuts=CUTS)
def test_any_tokens_stream_to_what_they_decode_to_together(ids: list[int], cuts: list[int]) -> None:
    assert streamed(StreamDecoder(TOKENIZER.decode), ids, cuts) == TOKENIZER.decode(ids)


@given(data=st.binary(max_size=60), cuts=CUTS)
def test_any_bytes_stream_to_what_they_decode_to_together(data: bytes, cuts: list[int]) -> None:
    def decode(ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    assert streamed(StreamDecoder(decode), list(data), cuts) == data.decode("utf-8", "replace")


@given(ids=st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=60), cuts=CUTS)
def test_no_piece_ends_inside_a_character(ids: list[int], cuts: list[int]) -> None:
    decoder = StreamDecoder(TOKENIZER.decode)
    shown, whole = "", TOKENIZER.decode(ids)
    for piece in pieces(ids, cuts):
        shown += decoder.push(piece)
        assert whole.startswith(shown)


def first_match(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition, by brute force: ends first, then longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end - len(stop)], stop
    return text, None


FEW_LETTERS = st.text(alphabet="ab\n", max_size=30)


@given(
    text=FEW_LETTERS,
    stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=6), max_size=4),
    cuts=CUTS,
)
def test_stop_strings_are_found_as_in_the_whole_text(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    matcher, shown, matched = StopMatcher(stops), "", None
    for piece in pieces(list(range(len(text))), cuts):
        safe, matched = matcher.push("".join(text[i] for i in piece))
        shown += safe
        assert first_match(text, stops)[0].startswith(shown)
    if matched is None:
        shown += matcher.flush()
    assert (shown, matched) == first_match(text, stops)
