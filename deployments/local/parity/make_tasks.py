"""Makes tasks.jsonl from ../demo/held_out.txt, text that the demo model was not trained on.

    .venv/bin/python deployments/local/parity/make_tasks.py

Each task is a passage cut at the end of a word: what comes before is the prompt, what follows the
continuation, and its first word the answer.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

HERE = Path(__file__).parent
TASKS, SAMPLED = 240, 40
PROMPT_WORDS, CONTINUATION_WORDS = 48, 12
MAX_TOKENS = 32


def main() -> None:
    """Write the same file every time."""
    draw = random.Random(0)
    text = (HERE.parent / "demo" / "held_out.txt").read_text(encoding="utf-8")
    words = list(re.finditer(r"\S+", text))
    size = PROMPT_WORDS + CONTINUATION_WORDS
    starts = sorted(draw.sample(range(0, len(words) - size, size), TASKS))
    sampled = set(draw.sample(starts, SAMPLED))
    with (HERE / "tasks.jsonl").open("w", encoding="utf-8") as file:
        for start in starts:
            cut, end = words[start + PROMPT_WORDS - 1].end(), words[start + size - 1].end()
            answer = re.match(r"\W*\w+", text[cut:end].lstrip())
            task = {
                "id": f"word-{start + PROMPT_WORDS}",
                "prompt": text[words[start].start() : cut],
                "continuation": text[cut:end],
                "max_tokens": MAX_TOKENS,
            }
            task |= {"answer": answer[0]} if answer else {}
            task |= {"sample": True} if start in sampled else {}
            file.write(json.dumps(task, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
