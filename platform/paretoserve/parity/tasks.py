"""The task file: one JSON object a line.

    {"id": "dracula-3", "prompt": "...", "continuation": "...", "answer": "...", "sample": true}

`continuation` is text whose log-likelihood is compared, `answer` what the greedy output must begin
with to be right, `sample` asks for the sampling test on this prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, ValidationError

from paretoserve.domain.document import Document
from paretoserve.executor.tokenizer import Tokenizer


class Task(Document):
    """A prompt, and what is asked of it. Its greedy output of `max_tokens` is always compared."""

    id: str = Field(min_length=1, max_length=128)
    prompt: str = Field(min_length=1)
    max_tokens: int = Field(default=32, ge=1)
    continuation: str = ""
    answer: str | None = Field(default=None, min_length=1)
    sample: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task in the model's tokens."""

    task: Task
    prompt: tuple[int, ...]
    continuation: tuple[int, ...]


def read_tasks(text: str) -> tuple[Task, ...]:
    """The tasks of a task file's text; empty lines are passed over.

    Raises ValueError with one line for each problem: bad JSON, an unknown key, an id used twice.
    """
    tasks: dict[str, Task] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            task = Task.model_validate_json(line)
        except ValidationError as error:
            problems += (_told(number, problem) for problem in error.errors(include_url=False))
            continue
        if task.id in tasks:
            problems.append(f"line {number}: id {task.id!r} is used twice")
        tasks[task.id] = task
    if problems:
        raise ValueError("\n".join(problems))
    if not tasks:
        raise ValueError("holds no task; each line must be a JSON object with id and prompt")
    return tuple(tasks.values())


def prepare(tasks: tuple[Task, ...], tokenizer: Tokenizer) -> list[Prepared]:
    """The tasks in tokens; a continuation is tokenized by itself. Raises InvalidRequest."""
    return [
        Prepared(
            task,
            tuple(tokenizer.encode_prompt(task.prompt)),
            tuple(tokenizer.encode(task.continuation)) if task.continuation else (),
        )
        for task in tasks
    ]


def is_right(text: str, answer: str) -> bool:
    """Whether an output is `answer`, or begins with it and goes on after the end of a word."""
    said, right = text.strip(), answer.strip()
    rest = said.removeprefix(right)
    return said.startswith(right) and not (right[-1:].isalnum() and rest[:1].isalnum())


def _told(number: int, problem: object) -> str:
    assert isinstance(problem, dict)
    field = ".".join(str(part) for part in problem["loc"])
    where = f"line {number}: {field}: " if field else f"line {number}: "
    return where + str(problem["msg"])
