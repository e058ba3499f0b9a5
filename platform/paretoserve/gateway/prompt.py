"""From a call's input to the model's token ids."""

from __future__ import annotations

import asyncio

from paretoserve.domain.conversation import Message
from paretoserve.domain.errors import ContextTooLong, InvalidRequest
from paretoserve.domain.model import Model
from paretoserve.executor.tokenizer import Tokenizer
from paretoserve.gateway.calls import Input
from paretoserve.gateway.chat import ChatTemplate

INLINE_CHARS = 4096
"""Text of up to this size is tokenized at once (under a millisecond); more goes to a thread, so
that it does not hold up every stream's tokens."""
MESSAGE_CHARS = 32
"""What a message costs beside its content, in the same measure."""


class PromptEncoder:
    """The tokenizer and chat template of one model. Raises EngineError for a broken template."""

    def __init__(self, model: Model, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._model = model
        template = tokenizer.chat_template
        self._chat = ChatTemplate(template, tokenizer) if template is not None else None

    async def encode(self, source: Input) -> tuple[int, ...]:
        """The token ids to generate from, at least one.

        Raises ContextTooLong, without tokenizing, for a text that cannot fit into the model's
        context however it is tokenized, and InvalidRequest for anything else that is wrong.
        """
        self._check_length(source)
        if _characters(source) > INLINE_CHARS:
            ids = await asyncio.to_thread(self._encode, source)
        else:
            ids = self._encode(source)
        if not ids:
            raise InvalidRequest("the prompt is empty; it needs at least one token", param="prompt")
        return ids

    def _encode(self, source: Input) -> tuple[int, ...]:
        if isinstance(source, str):
            return tuple(self.tokenizer.encode_prompt(source))
        if source and isinstance(source[0], Message):
            return tuple(self._encode_chat(source))
        return self._checked(source)  # type: ignore[arg-type]  # all are token ids

    def _encode_chat(self, messages: tuple[Message, ...]) -> list[int]:
        if self._chat is None:
            raise InvalidRequest(
                f"model {self._model.name} has no chat template; send a prompt instead",
                param="messages",
            )
        return self._chat.encode(messages)

    def _checked(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        if ids and not 0 <= min(ids) <= max(ids) < self.tokenizer.vocab_size:
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise InvalidRequest(
                f"token id {wrong} is not in the vocabulary of {self.tokenizer.vocab_size}",
                param="prompt",
            )
        return ids

    def _check_length(self, source: Input) -> None:
        if isinstance(source, str):
            least = self.tokenizer.least_tokens(source)
        else:
            least = sum(
                self.tokenizer.least_tokens(part.content) if isinstance(part, Message) else 1
                for part in source
            )
        if least >= self._model.context_tokens:
            raise ContextTooLong(
                f"the prompt has at least {least} tokens; model {self._model.name} has a context "
                f"of {self._model.context_tokens}, prompt and completion together",
                param="prompt",
            )


def _characters(source: Input) -> int:
    if isinstance(source, str):
        return len(source)
    return sum(len(m.content) + MESSAGE_CHARS for m in source if isinstance(m, Message))
