"""What of a stream is compiled: it begins and takes a chunk as in Python, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import typing
import weakref
from collections.abc import Awaitable, Callable
from types import MethodType, ModuleType
from typing import Any

import passing_judge
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamkit
from streamkit.core.framing import HTTP11
from streamkit.engines.logs import ASGI_LOG
from streamkit.engines.reading import Reading
from streamkit.engines.task import TaskStream
from streamkit.engines.thread import ThreadStream

HIGH_WATER = 1000


@pytest.fixture
def parts(compiled_parts: ModuleType) -> Any:
    return compiled_parts.STREAMS


async def idle(stream: Any) -> None:
    return None


def new_stream(**options: Any) -> TaskStream:
    """One of the running loop's; nobody reads it but the test."""
    response = streamkit.stream(idle)
    return TaskStream(streamkit.Options(high_water=HIGH_WATER, **options), HTTP11, ASGI_LOG, response)


# ---------------------------------------------------------------- what has happened, awaited


@pytest.mark.parametrize("result", [None, 0, 64, "text", (), (1, 2), ValueError("one"), StopIteration(3)])
def test_what_has_happened_gives_its_result_however_it_is_awaited(parts: Any, result: object) -> None:
    told = parts.Given(result)

    async def as_coroutine() -> object:
        return await told

    async def ask() -> list[object]:
        return [
            await told,
            await told,
            await asyncio.wait_for(as_coroutine(), 20),
            *await asyncio.gather(told, as_coroutine()),
            await asyncio.wait_for(told, 20),
        ]

    got = asyncio.run(ask())
    assert len(got) == 6
    assert all(one is result for one in got)
    assert isinstance(told, Awaitable)


def test_what_has_happened_ends_an_iteration_with_its_result(parts: Any) -> None:
    def delegating() -> Any:
        return (yield from parts.Given((1, 2)))

    with pytest.raises(StopIteration) as of_generator:
        next(delegating())
    with pytest.raises(StopIteration) as of_itself:
        next(parts.Given((1, 2)).__await__())
    assert of_generator.value.value == of_itself.value.value == (1, 2)


@pytest.mark.parametrize("given", [(), (1, 2)])
def test_what_has_happened_has_one_result(parts: Any, given: tuple[int, ...]) -> None:
    with pytest.raises(TypeError):
        parts.Given(*given)


def test_a_result_that_refers_to_its_awaitable_is_collected(parts: Any) -> None:
    class Result:
        told: object

    alive: list[int] = []

    def make() -> None:
        result = Result()
        result.told = parts.Given(result)
        weakref.finalize(result, alive.append, 1)

    make()
    gc.collect()
    assert alive == [1]


# ---------------------------------------------------------------- how a stream begins


def slots_of(stream: Reading) -> dict[str, object]:
    return {name: getattr(stream, name) for name in Reading.__slots__ if hasattr(stream, name)}


@pytest.mark.parametrize("kind", [Reading, TaskStream, ThreadStream])
def test_a_stream_begins_as_in_Python(parts: Any, kind: type[Reading]) -> None:
    assert isinstance(inspect.getattr_static(Reading, "_begin"), parts.Begin)
    ours, theirs = kind.__new__(kind), kind.__new__(kind)
    ours._begin()
    Reading._begin.__wrapped__(theirs)  # type: ignore[attr-defined]
    begun = slots_of(ours)
    assert begun == slots_of(theirs)
    assert all(begun[name] is value for name, value in slots_of(theirs).items())
    assert {"_state", "_tail", "_at_work", "_writers"} <= set(begun)
    assert not {"_mutex", "_chunks", "_room", "options", "response"} & set(begun)


def test_parts_that_were_compiled_from_other_sources_are_refused(
    parts: Any, compiled_parts: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_parts, "_EDITION", parts.EDITION + 1)
    for name in ("_passing", "_streams"):
        with pytest.raises(ImportError, match=rf"{name}.* was compiled from other sources"):
            compiled_parts._compiled(name)


def test_a_stream_under_asgi_has_no_dict_of_its_own() -> None:
    seen: list[dict[str, object]] = []

    async def producer(stream: Any) -> None:
        await stream.write(b"chunk")
        seen.append(dict(vars(stream)))

    async def send(message: Any) -> None:
        return None

    asyncio.run(streamkit.stream(producer)(dict(passing_judge.SCOPE), passing_judge.receive, send))
    assert seen == [{}]


def test_no_stream_begins_with_what_another_has(parts: Any) -> None:
    async def begin() -> None:
        first = new_stream()
        first.write(b"chunk")
        first.abort("why")
        second = new_stream()
        assert (second._chunks, second._abort, second._done, second.closed) == ([], None, False, False)

    asyncio.run(begin())


def test_a_stream_of_another_class_does_not_begin_so(parts: Any) -> None:
    for call in (parts.Begin, parts.Write):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError, match=r"wanted an instance of .*Reading.*, got 5"):
        parts.Begin(Reading, Reading._begin, Reading.__slots__, 5)
    with pytest.raises(AttributeError):
        parts.Begin(Reading, Reading._begin, ("_no_such",), Reading.__new__(Reading))
    with pytest.raises(TypeError, match="wanted a slot"):
        parts.Begin(Reading, Reading._begin, ("closed",), Reading.__new__(Reading))
    with pytest.raises(TypeError, match="at most 64"):
        parts.Begin(Reading, Reading._begin, ("_room",) * 65, Reading.__new__(Reading))
    with pytest.raises(AttributeError):
        parts.Write(object, len)


@pytest.mark.parametrize("given", [(), (5,), ("text", 1), (object(), b"chunk")])
def test_a_call_that_does_not_fit_is_for_the_method_itself(parts: Any, given: tuple[Any, ...]) -> None:
    seen: list[tuple[Any, ...]] = []

    def method(*args: Any, **named: Any) -> str:
        seen.append((*args, named))
        return "decided"

    begin = parts.Begin(Reading, method, (), Reading.__new__(Reading))
    write = parts.Write(TaskStream, method)
    for call in (begin, write):
        assert call(*given) == "decided"
        assert call(*given, more=1) == "decided"
    assert seen == [(*given, {}), (*given, {"more": 1})] * 2


# ---------------------------------------------------------------- how a chunk is taken

python_write: Callable[..., Any] = inspect.unwrap(TaskStream.write)

# The short cut is for sizes that were written before.
SIZES = st.sampled_from([1, 2, HIGH_WATER // 2 - 1, HIGH_WATER // 2])
TO_WRITE = st.one_of(
    SIZES.map(lambda size: b"x" * size),
    SIZES.map(lambda size: b"y" * size),
    st.binary(max_size=HIGH_WATER // 2),
    st.binary(min_size=300, max_size=HIGH_WATER * 2),
    st.text(max_size=20),
    st.binary(max_size=8).map(bytearray),
    st.binary(max_size=8).map(memoryview),
    st.sampled_from([None, 5, object, "\udcff"]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), TO_WRITE),
        st.tuples(st.sampled_from(["read", "park", "commit", "flag", "unready"]), st.none()),
        st.tuples(st.sampled_from(["write"] * 9 + ["close", "abort", "leave"]), st.just(b"late")),
    ),
    max_size=24,
)


def state_of(stream: TaskStream) -> tuple[Any, ...]:
    woken = stream._wake is None
    return stream._direct, stream._chunks, stream._room, woken, stream._state, stream._done, stream._connected


async def step(stream: TaskStream, write: Callable[..., Any], what: str, data: Any) -> Any:
    if what == "write":
        taken = write(stream, data)
        if inspect.iscoroutine(taken):  # it waits for room
            taken.close()
            return "waits"
        return await taken
    if what == "read":
        return stream.next_now()
    if what == "park":
        return stream.until_next() is None
    if what == "flag":
        stream._direct = False  # as a thread's write does
    elif what == "unready":
        stream._ready.clear()
    elif what == "leave":
        stream.leave()
    elif what == "abort":
        stream.abort("told to")
    else:
        await getattr(stream, what)()
    return None


@pytest.mark.usefixtures("compiled_parts")
@given(steps=STEPS)
def test_whatever_is_written_is_taken_as_in_Python(steps: list[tuple[str, Any]]) -> None:
    async def compare() -> None:
        ours, theirs = new_stream(), new_stream()
        ours._ready, theirs._ready = {}, {}  # neither finds what the other has put there
        for what, data in steps:
            got: list[Any] = []
            for stream, write in ((ours, TaskStream.write), (theirs, python_write)):
                try:
                    got.append(await step(stream, write, what, data))
                except Exception as error:
                    got.append((type(error), str(error)))
            assert got[0] == got[1], (what, data)
            assert state_of(ours) == state_of(theirs), (what, data)

    asyncio.run(compare())


def test_the_chunk_that_is_taken_is_the_one_that_was_written(parts: Any) -> None:
    async def write() -> None:
        stream = new_stream()
        chunks = [b"one", b"two", b"a third"]
        for chunk in chunks:
            assert await stream.write(chunk) == len(chunk)
        assert [id(one) for one in stream._chunks] == [id(one) for one in chunks]
        assert stream.next_now() == b"onetwoa third"

    asyncio.run(write())


def test_the_last_byte_of_room_is_taken_at_once_and_one_more_waits(parts: Any) -> None:
    async def fill() -> None:
        stream = new_stream()
        half = b"x" * (HIGH_WATER // 2)
        for _ in range(2):  # the second time their sizes are known
            assert await stream.write(half) == len(half)
            assert await stream.write(half) == len(half)
            assert stream._room == 0
            waiting = asyncio.ensure_future(stream.write(b"!"))
            await asyncio.sleep(0)
            assert not waiting.done()
            assert stream.next_now() == half + half + b"!"
            assert await asyncio.wait_for(waiting, 20) == 1

    asyncio.run(fill())


def test_a_reader_that_waits_is_woken_by_a_chunk(parts: Any) -> None:
    async def read() -> bytes | None:
        stream = new_stream()
        await stream.write(b"first!")
        assert stream.next_now() == b"first!"
        reading = asyncio.ensure_future(stream.next_chunk_async())
        await asyncio.sleep(0)
        assert not reading.done()
        await stream.write(b"second")
        return await asyncio.wait_for(reading, 20)

    assert asyncio.run(read()) == b"second"


@pytest.mark.parametrize("given", [(), (b"one",), (b"one", b"two")])
def test_a_wrong_number_of_arguments_is_refused_as_in_Python(parts: Any, given: tuple[bytes, ...]) -> None:
    async def refused() -> list[str]:
        stream, told = new_stream(), []
        await stream.write(b"one")  # from here on the short cut knows chunks of three bytes
        for write in (TaskStream.write, python_write):
            for named in ({"data": b"one"}, {"more": 1}, *([{}] if len(given) != 1 else [])):
                with pytest.raises(TypeError) as error:
                    write(stream, *given, **named)
                told.append(str(error.value))
        assert stream._chunks == [b"one"]
        return told

    told = asyncio.run(refused())
    assert told[: len(told) // 2] == told[len(told) // 2 :]


def test_other_objects_are_not_written_to(parts: Any) -> None:
    thread = ThreadStream(streamkit.Options(), HTTP11, ASGI_LOG)
    for other in (object(), None, 5, thread):
        with pytest.raises((AttributeError, TypeError)):
            TaskStream.write(other, b"chunk")  # type: ignore[arg-type]
    assert thread._chunks == []


def test_the_method_says_of_itself_what_the_Python_says(parts: Any) -> None:
    assert isinstance(inspect.getattr_static(TaskStream, "write"), parts.Write)
    for ask in (inspect.signature, inspect.getdoc, typing.get_type_hints, repr_of_bound, name_of):
        assert ask(TaskStream.write) == ask(python_write)
    assert name_of(functools.wraps(TaskStream.write)(idle)) == ("write", "TaskStream.write")
    asyncio.run(_bound())


def name_of(method: Any) -> tuple[str, str]:
    return method.__name__, method.__qualname__


def repr_of_bound(method: Any) -> str:
    return repr(MethodType(method, 5))


async def _bound() -> None:
    stream = new_stream()
    assert inspect.ismethod(stream.write)
    assert stream.write.__self__ is stream


def test_no_chunk_and_no_stream_is_kept(parts: Any) -> None:
    async def write(count: int) -> None:
        for _ in range(count):
            stream = new_stream()
            for size in (1, 40, 400):
                await stream.write(b"x" * size)
            stream.next_now()
            await stream.close()

    asyncio.run(write(200))  # what is kept for good is there by now
    gc.collect()
    before = sys.getallocatedblocks()
    asyncio.run(write(2000))
    gc.collect()
    assert sys.getallocatedblocks() - before < 500
