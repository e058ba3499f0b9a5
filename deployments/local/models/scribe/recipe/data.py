"""Corpus, tokenizer and training rows.

The corpus is one text file of several books, separated by two or more blank lines. The last
part of every book is held out: neither the tokenizer nor a weight ever sees it.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

PAD, BOS, END, USER, ASSISTANT, SYSTEM = range(6)
SPECIAL_TOKENS = ["<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

# Newlines stand alone, so that text may be cut at a paragraph and joined again.
WORD_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\n+|[^\S\n]+(?!\S)|[^\S\n]+"
)

CONTINUE = [
    "Continue the story.",
    "Continue this passage.",
    "Please continue.",
    "What happens next?",
    "Write the next paragraphs.",
    "Go on with the tale.",
]
BEGIN = ["Tell me a story.", "Write a story.", "Tell me something.", "Hello!", "Who are you?"]
FOLLOW_UP = ["Go on.", "Continue.", "And then?", "What happens next?", "Please continue."]
SYSTEM_TURNS = [
    "You are a novelist of the nineteenth century.",
    "You are a storyteller.",
    "You are a helpful assistant.",
]

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Book:
    """One book, cut at a paragraph into the part to learn from and the part held out."""

    train: str
    held_out: str


@dataclass(frozen=True)
class Stream:
    """Tokens of several texts end to end, with where paragraphs begin and texts stop."""

    ids: Ids
    paragraphs: Ids  # index of each paragraph's first token, then one past the end
    text_end: Ids  # for each paragraph, one past the last token of its text


def read_books(corpus: Path, held_out: float) -> list[Book]:
    """Read the corpus and hold out the last part (a fraction) of each book."""
    opener = gzip.open if corpus.suffix == ".gz" else open
    with opener(corpus, "rt", encoding="utf-8") as file:
        text = file.read()
    books = []
    for whole in re.split(r"\n{3,}", text.strip()):
        cut = whole.rindex("\n\n", 0, int(len(whole) * (1 - held_out)))
        books.append(Book(whole[:cut], whole[cut + 2 :]))
    return books


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE; every byte is in the vocabulary, so nothing is ever lost."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", BOS)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text, with nothing added."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def build_stream(tokenizer: Tokenizer, texts: list[str]) -> Stream:
    """Tokenize texts paragraph by paragraph into one stream."""
    (blank_line,) = encode(tokenizer, "\n\n")
    ids: list[int] = []
    paragraphs: list[int] = []
    text_end: list[int] = []
    for text in texts:
        parts = [part for part in text.split("\n\n") if part.strip()]
        for encoding in tokenizer.encode_batch(parts, add_special_tokens=False):
            paragraphs.append(len(ids))
            ids += encoding.ids
            ids.append(blank_line)
        text_end += [len(ids)] * len(parts)
    paragraphs.append(len(ids))
    return Stream(np.array(ids), np.array(paragraphs), np.array(text_end))


class PlainRows:
    """Rows of running text, drawn on the device: <|bos|>, then a window of one book."""

    def __init__(self, stream: Stream, device: torch.device) -> None:
        self.ids = torch.from_numpy(stream.ids).to(device)
        self.starts = torch.from_numpy(stream.paragraphs[:-1]).to(device)
        self.ends = torch.from_numpy(stream.text_end).to(device)

    def draw(self, rows: int, length: int) -> torch.Tensor:
        """Draw rows; half start at a paragraph, half at any token near one."""
        device = self.ids.device
        pick = torch.randint(len(self.starts), (rows,), device=device)
        shift = torch.randint(512, (rows,), device=device)
        shift = shift * (torch.rand(rows, device=device) < 0.5)
        start = torch.minimum(self.starts[pick] + shift, self.ends[pick] - (length - 1))
        window = start.clamp(min=0)[:, None] + torch.arange(length - 1, device=device)
        return torch.nn.functional.pad(self.ids[window], (1, 0), value=BOS)


class ChatWriter:
    """Turns running text into conversations in the form of the chat template."""

    def __init__(self, tokenizer: Tokenizer, stream: Stream, seed: int) -> None:
        self.tokenizer = tokenizer
        self.stream = stream
        self.random = np.random.default_rng(seed)
        self.cache: dict[str, list[int]] = {}

    def rows(self, count: int, length: int) -> torch.Tensor:
        """Conversations cut to one length."""
        return torch.from_numpy(np.stack([self._conversation(length) for _ in range(count)]))

    def prompts(self, count: int, length: int) -> torch.Tensor:
        """Prompts of exactly one length that end where the assistant is to answer."""
        return torch.from_numpy(np.stack([self._prompt(length) for _ in range(count)]))

    def _text(self, text: str) -> list[int]:
        if text not in self.cache:
            self.cache[text] = encode(self.tokenizer, text)
        return self.cache[text]

    def _turn(self, role: int, content: list[int]) -> list[int]:
        return [role, *self._text("\n"), *content, END, *self._text("\n")]

    def _choice(self, options: list[str]) -> list[int]:
        return self._text(options[self.random.integers(len(options))])

    def _user(self, passage: list[int]) -> list[int]:
        """A user's turn: an instruction before or after the passage, or one without any."""
        if not passage:
            return self._turn(USER, self._choice(BEGIN))
        instruction, gap = self._choice(CONTINUE), self._text("\n\n")
        if self.random.random() < 0.75:
            return self._turn(USER, instruction + gap + passage)
        return self._turn(USER, passage + gap + instruction)

    def _opening(self) -> list[int]:
        if self.random.random() < 0.25:
            return self._turn(SYSTEM, self._choice(SYSTEM_TURNS))
        return []

    def _paragraphs(self, first: int, count: int) -> list[int]:
        """Tokens of some paragraphs, without the blank line after the last."""
        bounds = self.stream.paragraphs
        last = min(first + count, len(bounds) - 1)
        piece: list[int] = self.stream.ids[bounds[first] : bounds[last] - 1].tolist()
        return piece

    def _conversation(self, length: int) -> Ids:
        at = int(self.random.integers(len(self.stream.paragraphs) - 24))
        given = 0 if self.random.random() < 0.2 else int(self.random.integers(1, 5))
        passage = self._paragraphs(at, given)[: length // 2] if given else []
        row = self._opening() + self._user(passage)
        at += given
        while True:
            told = int(self.random.integers(1, 5))
            at = min(at, len(self.stream.paragraphs) - 6)
            row += self._turn(ASSISTANT, self._paragraphs(at, told))
            at += told
            if len(row) >= length:
                return np.array(row[:length])
            row += self._turn(USER, self._choice(FOLLOW_UP))

    def _prompt(self, length: int) -> Ids:
        """Cut a passage that ends with a paragraph so that the whole prompt fits exactly."""
        opening, ask = self._opening(), [ASSISTANT, *self._text("\n")]
        instruction, gap = self._choice(CONTINUE), self._text("\n\n")
        frame = len(opening) + len(self._turn(USER, instruction + gap)) + len(ask)
        room = length - frame
        ends = self.stream.paragraphs[self.stream.paragraphs > length]
        end = int(ends[self.random.integers(len(ends))]) - 1
        passage: list[int] = self.stream.ids[end - room : end].tolist()
        return np.array([*opening, *self._turn(USER, instruction + gap + passage), *ask])
