"""A model's tokenizer, read from its folder in the Hugging Face layout.

Text that a user typed can never become a special token: `encode` and `encode_prompt` read
"<|end|>" as seven characters. Only `encode_template`, for text that the operator's chat template
wrote, knows special tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import tokenizers

from paretoserve.domain.errors import EngineError, InvalidRequest
from paretoserve.executor.model_files import read_eos_ids, read_json_if_there


class Tokenizer:
    """Encoding and decoding for one model. Immutable; every method may be called in any thread."""

    def __init__(
        self,
        definition: str,
        *,
        eos_ids: frozenset[int] = frozenset(),
        bos_token: str = "",
        eos_token: str = "",
        add_bos: bool = False,
        chat_template: str | None = None,
    ) -> None:
        """`definition` is the content of a tokenizer.json; `Tokenizer.load` reads the rest."""
        self._special_aware = tokenizers.Tokenizer.from_str(definition)
        self._plain = tokenizers.Tokenizer.from_str(definition)
        self._plain.encode_special_tokens = True  # the library's name for: as ordinary text
        for tokenizer in (self._special_aware, self._plain):
            tokenizer.no_truncation()
            tokenizer.no_padding()
        added = self._plain.get_added_tokens_decoder()
        self.special_tokens: Mapping[str, int] = {
            token.content: token_id for token_id, token in added.items() if token.special
        }
        self.eos_ids = eos_ids
        self.bos_token = bos_token
        self.eos_token = eos_token
        self.bos_id: int | None = self._plain.token_to_id(bos_token) if bos_token else None
        self.chat_template = chat_template
        self.vocab_size: int = self._plain.get_vocab_size()
        self._add_bos = add_bos
        self._anchor: list[int] = self._plain.encode("a", add_special_tokens=False).ids
        self._anchor_text: str = self._plain.decode(self._anchor)
        self._texts: dict[int, str] = {}
        self._longest_token = max(map(len, self._plain.get_vocab()), default=1)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read tokenizer.json and, where they exist, tokenizer_config.json, chat_template.jinja,
        generation_config.json and config.json.

        Raises EngineError that names the file, when there is none or it cannot be read.
        """
        folder = Path(path)
        config = read_json_if_there(folder / "tokenizer_config.json")
        model = read_json_if_there(folder / "config.json")
        generation = model | read_json_if_there(folder / "generation_config.json")
        definition = _read(folder / "tokenizer.json")
        if definition is None:
            raise EngineError(f"{folder / 'tokenizer.json'}: missing; the model has no tokenizer")
        try:
            bare = tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # the library raises bare Exception
            raise EngineError(f"{folder / 'tokenizer.json'}: {error}") from error
        bos_token = _token(config.get("bos_token")) or _token_of(
            bare, generation.get("bos_token_id")
        )
        eos_token = _token(config.get("eos_token"))
        eos_ids = read_eos_ids(folder, model) or _ids(bare.token_to_id(eos_token))
        return cls(
            definition,
            eos_ids=frozenset(eos_ids),
            bos_token=bos_token,
            eos_token=eos_token or _token_of(bare, min(eos_ids, default=None)),
            add_bos=bool(config.get("add_bos_token", False)),
            chat_template=_read(folder / "chat_template.jinja") or _chat_template(config),
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, nothing added, special tokens in it read as ordinary text.

        Raises InvalidRequest for a text that is no Unicode (lone surrogates).
        """
        return _encode(self._plain, text)

    def encode_prompt(self, text: str) -> list[int]:
        """Like `encode`, with what the model expects around a plain prompt, such as <|bos|>."""
        ids = _encode(self._plain, text, add_special_tokens=True)
        if self._add_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def encode_template(self, text: str) -> list[int]:
        """Token ids of a text that a chat template wrote: special tokens in it become theirs."""
        return _encode(self._special_aware, text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these tokens; special and unknown ones have none.

        Bytes that are no UTF-8 become U+FFFD.
        """
        return self._plain.decode(token_ids)

    def token_text(self, token_id: int) -> str:
        """One token's own text, the name of a special one; U+FFFD for a part of a character."""
        text = self._texts.get(token_id)
        if text is None:
            text = self._plain.decode([*self._anchor, token_id], skip_special_tokens=False)
            text = self._texts[token_id] = text[len(self._anchor_text) :]
        return text

    def least_tokens(self, text: str) -> int:
        """A lower bound, without encoding, on the number of tokens of `text`."""
        if self._plain.normalizer is not None:  # may make a text shorter
            return 0
        return len(text) // self._longest_token


def _encode(
    tokenizer: tokenizers.Tokenizer, text: str, *, add_special_tokens: bool = False
) -> list[int]:
    """In a batch of one, because only that lets other threads run meanwhile."""
    try:
        (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    except TypeError as error:
        raise InvalidRequest("the text is not valid Unicode (a lone surrogate)") from error
    ids: list[int] = encoding.ids
    return ids


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"{path}: cannot be read: {error}") from error


def _token(value: Any) -> str:
    """A token's text, which the layout spells as a string or as an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _token_of(tokenizer: tokenizers.Tokenizer, token_id: Any) -> str:
    return (tokenizer.id_to_token(token_id) or "") if isinstance(token_id, int) else ""


def _ids(token_id: int | None) -> tuple[int, ...]:
    return () if token_id is None else (token_id,)


def _chat_template(config: Mapping[str, Any]) -> str | None:
    """The template, or the one named `default` where a model has several."""
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template if isinstance(template, str) else None
