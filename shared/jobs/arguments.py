"""A handler's arguments: JSON when a step is written down, values of its types again when it runs. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from shared.jobs.context import JobContext
from shared.jobs.errors import BadArgumentsError, ResultTooLargeError

RESULT_BYTES_MAX = 65_536
_PROBLEMS_MAX = 5


class Arguments:
    """The types of a handler's parameters and of its result. A parameter of type `JobContext` gets no argument."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._name = name
        self._context: str | None = None
        self._adapters: dict[str, TypeAdapter[Any]] = {}
        self._positional: list[str] = []
        self._required: set[str] = set()
        hints = get_type_hints(function, include_extras=True)
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
                raise TypeError(f"{name}: parameter {parameter.name} cannot be given by name")
            if parameter.name not in hints:
                raise TypeError(f"{name}: parameter {parameter.name} has no type")
            self._add(parameter, hints[parameter.name])
        self._result: TypeAdapter[Any] = TypeAdapter(hints.get("return", Any))

    def _add(self, parameter: inspect.Parameter, hint: Any) -> None:
        if hint is JobContext:
            self._context = parameter.name
            return
        self._adapters[parameter.name] = TypeAdapter(hint)
        if parameter.kind is not parameter.KEYWORD_ONLY:
            self._positional.append(parameter.name)
        if parameter.default is parameter.empty:
            self._required.add(parameter.name)

    @property
    def takes_context(self) -> bool:
        """Whether the handler asks for the context."""
        return self._context is not None

    def takes(self, name: str) -> bool:
        """Whether that is one of the handler's parameters."""
        return name in self._adapters

    def to_json(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, with_input: bool) -> dict[str, Any]:
        """The arguments by parameter, as JSON values; `with_input`, the first parameter is left to the input.

        Raises `BadArgumentsError` for what the handler would not take.
        """
        names = self._positional
        if with_input:
            if not names:
                raise BadArgumentsError(f"{self._name} takes no argument, and would be given a result")
            names = names[1:]
        if len(args) > len(names):
            raise BadArgumentsError(f"{self._name} takes {len(names)} arguments here, not {len(args)}")
        given = dict(zip(names, args, strict=False))
        if twice := given.keys() & kwargs.keys():
            raise BadArgumentsError(f"{self._name}: {sorted(twice)[0]} is given twice")
        given.update(kwargs)
        self._require_names(given, without={self._positional[0]} if with_input else set())
        try:
            return {
                name: self._adapters[name].dump_python(self._adapters[name].validate_python(value), mode="json")
                for name, value in given.items()
            }
        except (ValidationError, ValueError, TypeError) as error:
            raise BadArgumentsError(f"{self._name}: {_sentence(error)}") from None

    def to_values(self, stored: Mapping[str, Any], *inputs: Any) -> dict[str, Any]:
        """The values to call the handler with, of what `to_json` made and the `inputs`, which are one or none.

        Raises `BadArgumentsError` for what the handler does not take, or not any more.
        """
        given = dict(stored)
        if inputs:
            if not self._positional:
                raise BadArgumentsError(f"{self._name} takes no argument, and is given a result")
            given[self._positional[0]] = inputs[0]
        self._require_names(given, without=set())
        try:
            return {name: self._adapters[name].validate_python(value) for name, value in given.items()}
        except ValidationError as error:
            raise BadArgumentsError(f"{self._name}: {_sentence(error)}") from None

    def with_context(self, values: dict[str, Any], context: JobContext) -> dict[str, Any]:
        """`values`, and the context where the handler asks for it."""
        return values if self._context is None else {**values, self._context: context}

    def result_to_json(self, result: Any, bytes_max: int = RESULT_BYTES_MAX) -> str:
        """The result as JSON text.

        Raises `ResultTooLargeError` over `bytes_max`, and `BadArgumentsError` for what is no JSON.
        """
        try:
            encoded = self._result.dump_json(result, warnings="error")
        except ValueError as error:
            raise BadArgumentsError(f"{self._name} returned what its type does not allow: {error}") from None
        if len(encoded) > bytes_max:
            raise ResultTooLargeError(
                f"{self._name} returned {len(encoded)} bytes of JSON, over the {bytes_max} allowed"
            )
        return encoded.decode()

    def _require_names(self, given: Mapping[str, Any], *, without: set[str]) -> None:
        if not without and given.keys() == self._adapters.keys():  # nearly always
            return
        if unknown := given.keys() - self._adapters.keys() | (given.keys() & without):
            raise BadArgumentsError(f"{self._name} takes no {sorted(unknown)[0]} here")
        if missing := self._required - given.keys() - without:
            raise BadArgumentsError(f"{self._name} lacks {', '.join(sorted(missing))}")


def _sentence(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problems = error.errors()[:_PROBLEMS_MAX]
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in problems)
