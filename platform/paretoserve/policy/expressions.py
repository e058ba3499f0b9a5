"""Expressions: the CEL conditions of a policy's rules, type-checked against the facts.

cel-expr-python is the CEL project's own C++ implementation. It rejects an unknown fact or a wrong
type when a rule is read, and evaluates a condition in two microseconds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from cel_expr_python import cel
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from paretoserve.policy.facts import (
    FACT,
    FACTS,
    FLEET,
    FLEET_FACTS,
    GROUPS,
    Fact,
    FleetFacts,
    Value,
)

_TYPES = {
    "bool": cel.Type.BOOL,
    "int": cel.Type.INT,
    "double": cel.Type.DOUBLE,
    "string": cel.Type.STRING,
}
_FIELD_TYPES = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int": FieldDescriptorProto.TYPE_INT64,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "string": FieldDescriptorProto.TYPE_STRING,
}
_PROBLEM = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_STATUS = re.compile(r"^[A-Z_]+: ")
_ABSENT = "No value with name"
_KINDS = (
    ("Key not found", "a key is not there"),
    ("divide by zero", "division by zero"),
    ("modulus by zero", "division by zero"),
    ("Index error", "an index is beyond its list"),
    ("invalid regular expression", "a regular expression is not valid"),
    ("No matching overloads", "types do not go together"),
    ("conver", "a value cannot be converted"),
    ("overflow", "a number is out of range"),
    ("out of", "a number is out of range"),
)
"""What is found in CEL's messages, and the kind of failure that it stands for."""
_OTHER_KIND = "its condition has no value"
_FLEET_KEYS = re.compile(
    r"""//[^\n]*                                              # a comment
      | \bfleet\s*\[\s*(?P<quoted>"[^"\\]*"|'[^'\\]*')\s*\]   # fleet["a profile"]
      | \bfleet\s*\.\s*(?P<plain>\w+)                         # fleet.profile
      | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*'                 # other text""",
    re.VERBOSE,
)


class ExpressionError(ValueError):
    """A condition that cannot be used, and what would be right. Names its line and column."""


class Failure(NamedTuple):
    """An expression had no value: a key that is not there, a division by zero.

    CEL's `message` quotes values, which may be what a client wrote; `kind` is words of ours only.
    """

    message: str

    @property
    def kind(self) -> str:
        found = (kind for words, kind in _KINDS if words in self.message)
        return next(found, _OTHER_KIND)


Truth = bool | Failure | None
"""None where it depends on a fact that was not given."""


class Facts:
    """Values of facts, for the evaluation of any number of expressions."""

    def __init__(self, values: Mapping[str, Value | FleetFacts]) -> None:
        self.activation = _running().Activation(values)


class Expression:
    """A condition, compiled. Raises ExpressionError for one that is not valid."""

    def __init__(self, text: str) -> None:
        self.text = text
        checked = _compile(text)
        self._program = _running().compile(text)
        self.facts: tuple[Fact, ...] = tuple(_mentioned(checked.serialize()))
        self.reads_fleet = _named(FLEET) in checked.serialize()

    def evaluate(self, facts: Facts) -> Truth:
        """Its value. CEL's logic needs no more facts than decide: `false && x` is false."""
        result = self._program.eval(facts.activation)
        value = result.value()
        if isinstance(value, bool):
            return value
        message = _STATUS.sub("", str(value))
        return None if message.startswith(_ABSENT) else Failure(message)

    @property
    def fleet_profiles(self) -> tuple[str, ...]:
        """The profiles whose fleet facts it names outright."""
        found = (
            (match["quoted"] or "").strip("\"'") or match["plain"]
            for match in _FLEET_KEYS.finditer(self.text)
        )
        return tuple(dict.fromkeys(name for name in found if name))


def _compile(text: str) -> cel.Expression:
    """Check types; `fleet[...]` is a message here, so that a misspelt field of it is an error."""
    try:
        checked = _checking().compile(text)
    except RuntimeError as error:
        raise ExpressionError("; ".join(_explain(str(error), text))) from None
    if checked.return_type() != cel.Type.BOOL:
        given = checked.return_type().name().lower()
        raise ExpressionError(f"gives a value of type {given}; a condition is true or false")
    return checked


@lru_cache(maxsize=1)
def _checking() -> cel.Env:
    file = FileDescriptorProto(name="paretoserve/facts.proto", package="facts", syntax="proto3")
    message = file.message_type.add(name="Fleet")
    for number, (name, (kind, _)) in enumerate(FLEET_FACTS.items(), start=1):
        message.field.add(
            name=name,
            number=number,
            type=_FIELD_TYPES[kind],
            label=FieldDescriptorProto.LABEL_OPTIONAL,
        )
    pool = DescriptorPool()
    pool.Add(file)
    return cel.NewEnv(pool, variables=_variables(cel.Type("facts.Fleet")))


@lru_cache(maxsize=1)
def _running() -> cel.Env:
    return cel.NewEnv(variables=_variables(cel.Type.Map(cel.Type.STRING, cel.Type.DYN)))


def _variables(of_profile: cel.Type) -> dict[str, cel.Type]:
    facts = {fact.name: _TYPES[fact.kind] for fact in FACTS}
    return facts | {FLEET: cel.Type.Map(cel.Type.STRING, of_profile)}


def _mentioned(serialized: bytes) -> Iterator[Fact]:
    """The facts that a checked expression refers to, and perhaps one that it only quotes."""
    return (fact for fact in FACTS if _named(fact.name) in serialized)


def _named(name: str) -> bytes:
    """A name as protobuf writes it: after its length."""
    return bytes([len(name)]) + name.encode()


def _explain(error: str, text: str) -> Iterator[str]:
    """Each of the compiler's complaints, in the words of whoever wrote the rule."""
    for line, column, message in _PROBLEM.findall(error):
        where = f"line {line}, column {column}" if "\n" in text.strip() else f"column {column}"
        yield f"{where}: {_reworded(message.removesuffix(' [INVALID_ARGUMENT]'))}"
        if "Syntax error" in message:
            return  # what follows a syntax error is its echo


def _reworded(message: str) -> str:
    if match := re.match(r"undeclared reference to '(.*?)' ", message):
        return _unknown(match[1])
    if match := re.match(r"undefined field '(.*?)' ", message):
        return f"{match[1]!r} is not known of a profile{_nearest(match[1], FLEET_FACTS, list(FLEET_FACTS))}"
    if match := re.match(r"found no matching overload for '(.*?)' applied to '\((.*)\)'", message):
        return _mismatch(match[1], match[2].replace("facts.Fleet", "profile"))
    if match := re.match(r"Syntax error: (.*)", message):
        return f"not valid CEL: {match[1].partition(' expecting ')[0].replace('<EOF>', 'end')}"
    return message


def _unknown(name: str) -> str:
    if name in GROUPS:
        return f"{name!r} is a group of facts; name one, such as {_of_group(name)[0]}"
    group = name.partition(".")[0]
    if group in GROUPS:
        return f"{name!r} is not a fact{_nearest(name, FACT, _of_group(group))}"
    return f"{name!r} is unknown; facts begin with {', '.join(f'{g}.' for g in GROUPS)} or {FLEET}[...]"


def _of_group(group: str) -> list[str]:
    return [name for name in FACT if name.startswith(f"{group}.")]


def _nearest(name: str, known: Iterable[str], all_of_them: list[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(all_of_them)}"


def _mismatch(operator: str, types: str) -> str:
    shown = operator.strip("_@").replace("[_]", "[]").replace("?_:", "?:")
    given = " and ".join(types.split(", ")) if types.count(",") == 1 else types
    hint = ""
    if set(types.split(", ")) == {"int", "double"}:
        hint = (
            "; write a whole number beside a double with a point, as 2.0, or convert with double()"
        )
    return f"{shown!r} does not work on {given}{hint}"
