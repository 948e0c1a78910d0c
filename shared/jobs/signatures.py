"""Signatures: what is to be called with which arguments, composed into chains, groups and chords. Pure.

    @job(queue="sums", retries=Retry(5))
    async def add(a: int, b: int) -> int: ...

    chain(add.s(1, 2), group(multiply.s(3), square.s()), then=total.s())

What follows in a chain gets the result of what is before it as its first argument: of a group, the list of its
members' results in their order. Every member of a group gets what the group gets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from shared.jobs.arguments import Arguments
from shared.jobs.errors import BadArgumentsError
from shared.jobs.retries import Retry

P = ParamSpec("P")
R = TypeVar("R")

OnFailure = Literal["fail", "pass", "ignore"]
"""What a failed step does to what follows: it is skipped; it gets the error in the result's place, as
`{"error": {"type", "message"}}`; it gets null."""


class Job(Generic[P, R]):
    """A handler: a function whose calls can be steps of a job. Calling it calls the function, and nothing else."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        queue: str = "default",
        retries: Retry | None = None,
        soft_s: float | None = None,
        hard_s: float | None = None,
        process: bool = False,
        leased: bool = False,
        concurrency: int | None = None,
        concurrency_key: str | None = None,
    ) -> None:
        self.function = function
        self.name: str = name or function.__name__
        self.queue = queue
        self.retries = retries or Retry()
        self.soft_s = soft_s
        self.hard_s = hard_s
        self.process = process
        self.leased = leased or process
        self.arguments = Arguments(function, self.name)
        self.concurrency = concurrency
        self._key = concurrency_key
        if concurrency is not None and (concurrency < 1 or not self.leased):
            raise ValueError(f"{self.name}: concurrency is that of leased steps, and at least 1")
        if concurrency_key is not None and (concurrency is None or not self.arguments.takes(concurrency_key)):
            raise ValueError(f"{self.name}: a concurrency key is a parameter, and goes with a concurrency")
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<job {self.name}>"

    def concurrency_key(self, args: Mapping[str, Any]) -> str | None:
        """What a step that is called with these arguments shares its concurrency with; None where it has none.

        Raises `BadArgumentsError` where the key is not among what is submitted.
        """
        if self.concurrency is None or self._key is None:
            return None if self.concurrency is None else self.name
        if self._key not in args:
            raise BadArgumentsError(f"{self.name}: {self._key}, its concurrency key, must be said when submitting")
        return f"{self.name} {json.dumps(args[self._key], sort_keys=True)}"

    def s(self, *args: Any, **kwargs: Any) -> Call:
        """A step that calls this; in a chain, behind the result of what is before it."""
        return Call(self, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Call:
        """The same without the result of what is before it, which it only waits for."""
        return Call(self, args, kwargs, takes_input=False)


@overload
def job(function: Callable[P, R], /) -> Job[P, R]: ...
@overload
def job(
    *,
    name: str | None = None,
    queue: str = "default",
    retries: Retry | None = None,
    soft_s: float | None = None,
    hard_s: float | None = None,
    process: bool = False,
    leased: bool = False,
    concurrency: int | None = None,
    concurrency_key: str | None = None,
) -> Callable[[Callable[P, R]], Job[P, R]]: ...
def job(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a typed function, `async def` or plain, a handler.

    `name` (the function's unless said) is what rows and events call it. A step runs inline, in the consumer's own
    transaction, or is `leased` to a worker; `process` runs it in a process of its own, and is always leased. After
    `soft_s` seconds it is told to stop, after `hard_s` it is killed. Of its leased steps `concurrency` run at
    once, over all workers, or so many for each value of the parameter `concurrency_key`. Raises `TypeError` for a
    parameter without a type, and for `*args` and `**kwargs`; `ValueError` for limits that cannot be.
    """
    if function is not None:
        return Job(function)
    return lambda decorated: Job(decorated, **options)


@dataclass(frozen=True, slots=True)
class Call:
    """One step to be: a handler and what it is called with. It begins `delay_s` seconds after it could."""

    job: Job[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    takes_input: bool = True
    delay_s: float = 0.0

    def after(self, seconds: float) -> Call:
        """The same, begun so many seconds later; the wait is a row in the database and holds nothing."""
        if seconds < 0:
            raise ValueError("a step cannot begin before it can")
        return replace(self, delay_s=float(seconds))


@dataclass(frozen=True, slots=True)
class Chain:
    """One after the other."""

    parts: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Side by side; what follows waits for all of them."""

    members: tuple[Signature, ...]
    on_failure: OnFailure = "fail"


Signature = Call | Chain | Group


def chain(*parts: Signature, then: Signature | None = None) -> Chain:
    """`parts` one after the other, and `then` last. Raises `ValueError` for none at all."""
    parts = parts if then is None else (*parts, then)
    if not parts:
        raise ValueError("a chain has at least one part")
    return Chain(parts)


def group(*members: Signature, on_failure: OnFailure = "fail") -> Group:
    """`members` side by side. Its result is the list of theirs, in their order; of no members, the empty list."""
    return Group(members, on_failure)


def chord(*members: Signature, then: Signature, on_failure: OnFailure = "fail") -> Chain:
    """`members` side by side, and `then` with the list of their results."""
    return Chain((group(*members, on_failure=on_failure), then))


def map_over(
    each: Job[..., Any] | Call,
    items: Iterable[Any],
    *,
    then: Signature | None = None,
    on_failure: OnFailure = "fail",
) -> Signature:
    """A step for each item, its first argument, before those that `each` has already; `then` joins them.

    In a chain, the items stand where the result of what is before them would: that is only waited for.
    """
    call = each.s() if isinstance(each, Job) else each
    members = group(
        *(replace(call, args=(item, *call.args), takes_input=False) for item in items), on_failure=on_failure
    )
    return members if then is None else Chain((members, then))
