"""A chat template in the Hugging Face layout: from messages to token ids, safe from injection.

The template's special tokens become special tokens. Those that somebody typed into a message do
not: while the template runs, the characters that could make one of them are replaced by others
that stand for them, and put back afterwards in text that is encoded as ordinary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from paretoserve.domain.conversation import Message
from paretoserve.domain.errors import EngineError, InvalidRequest
from paretoserve.executor.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")
_PRIVATE_USE = range(0xE000, 0xF8FF)


class ChatTemplate:
    """One model's chat template. Immutable; may be used in any thread."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        """Raises EngineError for a template that does not parse."""
        self._tokenizer = tokenizer
        self._specials = tuple(sorted(filter(None, tokenizer.special_tokens), key=len)[::-1])
        self._special = re.compile("(" + "|".join(map(re.escape, self._specials)) + ")")
        self._longest = max(map(len, self._specials), default=0)
        self._heads = {token[:cut] for token in self._specials for cut in range(1, len(token))}
        self._tails = {token[cut:] for token in self._specials for cut in range(1, len(token))}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise EngineError(f"the model's chat template does not parse: {error}") from error

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt for the assistant's next turn.

        Raises InvalidRequest for an unknown role, and with the template's own words for a
        conversation that it refuses.
        """
        _check_roles(messages)
        contents = [message.content for message in messages]
        if not any(map(self._could_forge, contents)):
            return self._tokenizer.encode_template(self._render(messages))
        stand_ins = self._stand_ins(contents)
        guarded = [Message(m.role, m.content.translate(stand_ins)) for m in messages]
        originals = {ord(stand_in): chr(char) for char, stand_in in stand_ins.items()}
        ids: list[int] = []
        for piece in filter(None, self._special.split(self._render(guarded))):
            special = self._tokenizer.special_tokens.get(piece)
            if special is not None:
                ids.append(special)
            else:
                ids.extend(self._tokenizer.encode(piece.translate(originals)))
        return ids

    def _render(self, messages: Iterable[Message]) -> str:
        try:
            return self._template.render(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                add_generation_prompt=True,
                bos_token=self._tokenizer.bos_token,
                eos_token=self._tokenizer.eos_token,
            )
        except jinja2.TemplateError as error:
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error

    def _could_forge(self, content: str) -> bool:
        """Whether `content` holds a special token, or at an end the part of one to which the
        template might add the rest.
        """
        if not self._specials:
            return False
        if self._special.search(content) is not None:
            return True
        trimmed = content.strip()
        lengths = range(1, self._longest)
        return any(trimmed[-n:] in self._heads or trimmed[:n] in self._tails for n in lengths)

    def _stand_ins(self, contents: Sequence[str]) -> dict[int, str]:
        """For the first and last character of every special token one that occurs nowhere: without
        them no special token can begin or end inside a message.
        """
        present = set().union(*contents)
        unused = (chr(code) for code in _PRIVATE_USE if chr(code) not in present)
        ends = dict.fromkeys(char for token in self._specials for char in (token[0], token[-1]))
        stand_ins = dict(zip(map(ord, ends), unused, strict=False))
        if len(stand_ins) < len(ends):
            raise InvalidRequest(
                "the messages use too many private-use characters", param="messages"
            )
        return stand_ins


def _check_roles(messages: Sequence[Message]) -> None:
    for i, message in enumerate(messages):
        if message.role not in ROLES:
            where = f"messages[{i}].role"
            raise InvalidRequest(f"{where} must be one of {', '.join(ROLES)}", param=where)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Jinja's own escapes for HTML, which a model never saw."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
