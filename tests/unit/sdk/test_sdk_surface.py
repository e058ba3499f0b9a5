"""The SDK's public surface: what it exports, that all of it is documented, and how options behave."""

from __future__ import annotations

import ast
import inspect
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import paretoserve
from paretoserve import sdk
from paretoserve.domain import errors
from paretoserve.sdk import _aio, _client, _options

CALLS = ["generate", "stream", "explain", "list_models", "close"]


def test_every_exported_name_exists_and_is_sorted() -> None:
    assert sdk.__all__ == sorted(sdk.__all__)
    assert all(hasattr(sdk, name) for name in sdk.__all__)


def test_nothing_else_is_public() -> None:
    public = {
        name
        for name, value in vars(sdk).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(sdk.__all__)


def test_the_whole_error_tree_is_exported() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.ParetoserveError)
    }
    assert tree <= set(sdk.__all__)


def test_the_package_is_typed() -> None:
    assert (Path(paretoserve.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("cls", [sdk.Client, sdk.AsyncClient, sdk.Stream, sdk.AsyncStream])
def test_every_public_method_has_a_docstring(cls: type) -> None:
    assert cls.__doc__
    for name, value in vars(cls).items():
        if not name.startswith("_"):
            assert inspect.getdoc(value), f"{cls.__name__}.{name}"


def test_both_clients_have_the_same_calls() -> None:
    for name in CALLS:
        sync = inspect.signature(getattr(sdk.Client, name))
        aio = inspect.signature(getattr(sdk.AsyncClient, name))
        assert list(sync.parameters) == list(aio.parameters), name
    streams = [{n for n in vars(cls) if n[0] != "_"} for cls in (_client.Stream, _aio.AsyncStream)]
    assert streams[0] == streams[1]


@pytest.mark.parametrize("name", ["Tls", "ClientOptions", "RequestOptions"])
def test_every_option_has_its_own_sentence(name: str) -> None:
    module = ast.parse(inspect.getsource(_options))
    (cls,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)
    for statement, following in zip(cls.body, cls.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign):
            documented = isinstance(following, ast.Expr) and isinstance(
                following.value, ast.Constant
            )
            assert documented, f"{name}.{ast.unparse(statement.target)}"


def test_options_are_frozen_and_keep_the_key_out_of_sight() -> None:
    options = sdk.ClientOptions(api_key="sk-secret")
    assert "sk-secret" not in repr(options)
    with pytest.raises(FrozenInstanceError):
        options.api_key = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "bad",
    [
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"keepalive_s": 0},
        {"max_message_bytes": -1},
        {"headers": {"X-Team": "a"}},
        {"headers": {"x-team": "line\nbreak"}},
    ],
)
def test_options_that_make_no_sense_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        sdk.ClientOptions(**bad)  # type: ignore[arg-type]


def test_a_bad_key_is_refused_without_being_repeated() -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        sdk.ClientOptions(api_key="sk-secret\n")
    assert "sk-secret" not in str(caught.value)


def test_the_environment_is_read_only_when_asked() -> None:
    assert sdk.ClientOptions.from_env({"PARETOSERVE_API_KEY": "sk-x"}).api_key == "sk-x"
    with pytest.raises(ValueError, match="PARETOSERVE_API_KEY"):
        sdk.ClientOptions.from_env({})
