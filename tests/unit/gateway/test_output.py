from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paretoserve.domain.completion import FinishReason, TokenLogprob
from paretoserve.domain.conversation import TextDelta
from paretoserve.domain.usage import Timing, Usage
from paretoserve.executor.contract import Chunk, Finish
from paretoserve.executor.tokenizer import Tokenizer
from paretoserve.gateway.output import Output

TOKENIZER = Tokenizer.load(
    Path(__file__).parents[3] / "deployments" / "local" / "models" / "scribe"
)


def output(*stops: str) -> Output:
    return Output(TOKENIZER, stops)


def chunk(text: str, finish: Finish | None = None) -> Chunk:
    return Chunk("id", tuple(TOKENIZER.encode(text)), finish=finish)


def finish(reason: FinishReason = FinishReason.LENGTH, stop: str = "") -> Finish:
    return Finish(reason, Usage(3, 9), Timing(1.5, 2, 3), stop=stop)


def texts(deltas: Sequence[TextDelta | None]) -> list[str]:
    return [delta.text for delta in deltas if delta is not None]


def test_what_the_engine_says_at_the_end_is_what_is_reported() -> None:
    out = output()
    deltas = [out.push(chunk("Once upon")), out.push(chunk(" a time", finish()))]
    assert texts(deltas) == ["Once upon", " a time"]
    assert out.ended
    assert (out.reason, out.stop) == (FinishReason.LENGTH, "")
    assert out.finish == finish()


def test_an_open_character_is_shown_at_the_end() -> None:
    out = output()
    half = TOKENIZER.encode("🙂")[:2]
    first = out.push(Chunk("id", tuple(half)))
    assert first == TextDelta("", tuple(half))
    last = out.push(Chunk("id", finish=finish()))
    assert last == TextDelta("\ufffd", ())


def test_a_final_chunk_without_anything_new_shows_nothing() -> None:
    out = output()
    out.push(chunk("Hi"))
    assert out.push(Chunk("id", finish=finish())) is None
    assert out.ended


def test_a_stop_string_across_chunks_ends_the_output_before_the_engine_does() -> None:
    out = output("END")
    deltas = [out.push(chunk("the E")), out.push(chunk("N")), out.push(chunk("D and more"))]
    assert texts(deltas) == ["the ", "", ""]
    assert out.ended
    assert (out.reason, out.stop) == (FinishReason.STOP, "END")
    assert out.finish is None


def test_a_stop_string_in_the_last_chunk_wins_over_the_length() -> None:
    out = output("END")
    assert texts([out.push(chunk("the END.", finish(FinishReason.LENGTH)))]) == ["the "]
    assert (out.reason, out.stop) == (FinishReason.STOP, "END")


def test_the_beginning_of_a_stop_string_that_never_came_is_shown_at_the_end() -> None:
    out = output("END")
    assert texts([out.push(chunk("the E")), out.push(chunk("", finish()))]) == ["the ", "E"]
    assert out.reason is FinishReason.LENGTH


def test_a_stop_id_of_the_engine_is_passed_on() -> None:
    out = output()
    out.push(chunk("Hi", finish(FinishReason.STOP, stop="2")))
    assert (out.reason, out.stop) == (FinishReason.STOP, "2")


def test_logprobs_come_with_the_text_of_their_tokens() -> None:
    ids = tuple(TOKENIZER.encode(" the sea"))
    logprobs = tuple(TokenLogprob(-0.5, ((ids[0], -0.5), (2, -3.0))) for _ in ids)
    delta = output().push(Chunk("id", ids, logprobs))
    assert delta is not None
    assert "".join(token.text for token in delta.logprobs) == " the sea"
    assert [(top.token_id, top.text) for top in delta.logprobs[0].top][1] == (2, "<|end|>")
