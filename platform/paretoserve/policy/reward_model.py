"""A small model of what an action earns: shrunk means by action and tier, and a few features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

SHRINKAGE = 5.0
"""Rows that a mean by action or tier must have seen to count half against the mean of all."""
FEATURE_PENALTY = 1.0

Columns = Sequence[tuple[int, float]]
"""The non-zero entries of one row of the design matrix."""


class Example(NamedTuple):
    """One observed reward. `features` are numbers of the order of 1."""

    tier: str
    action: str
    features: tuple[float, ...]
    reward: float
    weight: float = 1.0


class RewardModel:
    """Ridge regression of reward on a constant, the action, the action in its tier, and features.

    The penalty pulls an action's mean towards that of all and a tier's towards its action's, the
    more the fewer rows there are (Hoerl and Kennard, 1970). Predictions stay within the rewards
    that were seen.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        """Raises ValueError for no examples."""
        if not examples:
            raise ValueError("a reward model needs at least one row")
        self._index: dict[tuple[str, ...], int] = {(): 0}
        self._features = len(examples[0].features)
        for example in examples:
            self._index.setdefault((example.action,), len(self._index))
            self._index.setdefault((example.tier, example.action), len(self._index))
        self._low = min(example.reward for example in examples)
        self._high = max(example.reward for example in examples)
        self._beta = self._fit(examples)

    def predict(self, tier: str, action: str, features: tuple[float, ...]) -> float:
        """The reward expected of `action`; of one never seen, what features and the rest say."""
        columns = self._columns(tier, action, features)
        value = math.fsum(self._beta[at] * number for at, number in columns)
        return min(max(value, self._low), self._high)

    def _columns(self, tier: str, action: str, features: tuple[float, ...]) -> Columns:
        keys: Iterable[tuple[str, ...]] = ((), (action,), (tier, action))
        known = [(self._index[key], 1.0) for key in keys if key in self._index]
        base = len(self._index)
        return known + [(base + at, number) for at, number in enumerate(features)]

    def _fit(self, examples: Sequence[Example]) -> list[float]:
        size = len(self._index) + self._features
        matrix = [[0.0] * size for _ in range(size)]
        right = [0.0] * size
        for tier, action, features, reward, weight in examples:
            columns = self._columns(tier, action, features)
            for row, left in columns:
                right[row] += weight * left * reward
                line = matrix[row]
                for column, number in columns:
                    line[column] += weight * left * number
        for at in range(1, size):
            matrix[at][at] += SHRINKAGE if at < len(self._index) else FEATURE_PENALTY
        return _solve(matrix, right)


def scaled(
    features: Sequence[Mapping[str, tuple[float, ...]]],
) -> list[dict[str, tuple[float, ...]]]:
    """Features divided by their root mean square over all rows and actions."""
    vectors = [vector for row in features for vector in row.values()]
    width = len(vectors[0]) if vectors else 0
    scales = [
        math.sqrt(math.fsum(vector[at] ** 2 for vector in vectors) / len(vectors)) or 1.0
        for at in range(width)
    ]
    return [
        {action: tuple(map(float.__truediv__, vector, scales)) for action, vector in row.items()}
        for row in features
    ]


def _solve(matrix: list[list[float]], right: Sequence[float]) -> list[float]:
    """Solve `matrix @ x = right` for a symmetric positive definite matrix, by Cholesky's method."""
    size = len(right)
    lower = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i][j] - math.fsum(lower[i][k] * lower[j][k] for k in range(j))
            lower[i][j] = math.sqrt(rest) if i == j else rest / lower[j][j]
    middle: list[float] = []
    for i in range(size):
        above = math.fsum(lower[i][k] * middle[k] for k in range(i))
        middle.append((right[i] - above) / lower[i][i])
    solution = [0.0] * size
    for i in reversed(range(size)):
        below = math.fsum(lower[k][i] * solution[k] for k in range(i + 1, size))
        solution[i] = (middle[i] - below) / lower[i][i]
    return solution
