from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from paretoserve.domain.text import MAX_HELD_TOKENS, StopMatcher, StreamDecoder


def byte_decoder(vocabulary: Sequence[bytes]) -> Callable[[Sequence[int]], str]:
    return lambda ids: b"".join(vocabulary[i] for i in ids).decode("utf-8", "replace")


BYTES = byte_decoder([bytes([value]) for value in range(256)])


def test_a_character_is_given_out_whole_when_its_last_byte_arrives() -> None:
    decoder = StreamDecoder(BYTES)
    euro = "€".encode()
    assert [decoder.push([byte]) for byte in b"a" + euro + b"b"] == ["a", "", "", "€", "b"]
    assert decoder.flush() == ""


def test_text_before_an_open_character_is_not_held_back() -> None:
    assert StreamDecoder(BYTES).push([*b"price: ", 0xE2, 0x82]) == "price: "


def test_an_emoji_of_several_code_points_comes_code_point_by_code_point() -> None:
    decoder = StreamDecoder(BYTES)
    family = "👨‍👩‍👧"
    assert "".join(decoder.push([byte]) for byte in family.encode()) == family


def test_a_byte_that_nothing_can_complete_is_shown_once_the_next_character_settles_it() -> None:
    decoder = StreamDecoder(BYTES)
    assert decoder.push([0xFF]) == ""
    assert decoder.push([0xFF]) == "\ufffd"
    assert decoder.push([ord("x")]) == "\ufffdx"


def test_flush_shows_a_character_that_never_completed() -> None:
    decoder = StreamDecoder(BYTES)
    assert decoder.push([ord("a"), 0xF0, 0x9F]) == "a"
    assert decoder.flush() == "\ufffd"
    assert decoder.flush() == ""


def test_what_is_held_is_bounded_when_every_token_straddles_two_characters() -> None:
    straddling = [b"\xe2", b"\x82\xac\xe2"]
    decoder = StreamDecoder(byte_decoder(straddling))
    shown = [decoder.push([0])] + [decoder.push([1]) for _ in range(2 * MAX_HELD_TOKENS)]
    assert any(shown)
    assert len(decoder._held) <= MAX_HELD_TOKENS + 1


def test_tokens_without_text_are_neither_held_nor_shown() -> None:
    decoder = StreamDecoder(lambda ids: "".join("?" for i in ids if i))
    assert [decoder.push([0]) for _ in range(1000)] == [""] * 1000
    assert not decoder._held
    assert decoder.push([1]) == "?"


def test_a_token_without_text_does_not_end_an_open_character() -> None:
    decoder = StreamDecoder(byte_decoder([b"\xe2", b"", b"\x82\xac"]))
    assert [decoder.push([i]) for i in (0, 1, 2)] == ["", "", "€"]


def test_a_decoder_that_strips_the_first_space_keeps_those_between_words() -> None:
    words = ["▁Hello", "▁big", "▁world"]

    def decode(ids: Sequence[int]) -> str:
        return "".join(words[i] for i in ids).replace("▁", " ").removeprefix(" ")

    decoder = StreamDecoder(decode)
    assert [decoder.push([i]) for i in range(3)] == ["Hello", " big", " world"]


def test_the_work_for_a_token_does_not_grow_with_the_stream() -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return BYTES(ids)

    decoder = StreamDecoder(decode)
    for byte in ("naïve €uro 🙂 " * 200).encode():
        decoder.push([byte])
    assert longest <= 8


def test_text_is_held_only_while_it_may_begin_a_stop_string() -> None:
    matcher = StopMatcher(["\n\nEnd"])
    assert matcher.push("one\n") == ("one", None)
    assert matcher.push("two\n\nE") == ("\ntwo", None)
    assert matcher.push("nd of it") == ("", "\n\nEnd")
    assert matcher.push("more") == ("", "\n\nEnd")


def test_flush_returns_the_beginning_of_a_stop_string_that_never_came() -> None:
    matcher = StopMatcher(["STOP"])
    assert matcher.push("a ST") == ("a ", None)
    assert matcher.flush() == "ST"
    assert matcher.flush() == ""


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["cd", "b"], "abcd", ("a", "b")),
        (["bc", "abcd"], "abcd", ("a", "bc")),  # ends first, although the other began first
        (["c", "bc", "abc"], "abc", ("", "abc")),  # end together: the longest
        (["aab"], "aaab", ("a", "aab")),  # the automaton falls back, not to the beginning
        (["x"], "abc", ("abc", None)),
        ([], "abc", ("abc", None)),
        (["é"], "cafe\u0301 é", ("cafe\u0301 ", "é")),  # compared as code points
    ],
)
def test_which_match_wins(stops: list[str], text: str, expected: tuple[str, str | None]) -> None:
    assert StopMatcher(stops).push(text) == expected


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one character"):
        StopMatcher(["a", ""])
