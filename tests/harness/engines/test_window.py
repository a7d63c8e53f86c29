"""How the number of requests at once follows what a server bears."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ahabench.harness.engines.window import SLOWDOWN, START, Window

Value = TypeVar("Value")


def run(work: Coroutine[Any, Any, Value]) -> Value:
    return asyncio.run(asyncio.wait_for(work, 10))


async def take(window: Window, n: int) -> list[Any]:
    places = [window.place() for _ in range(n)]
    for place in places:
        await place.__aenter__()
    return places


async def give(places: list[Any]) -> None:
    for place in places:
        await place.__aexit__(None, None, None)


def test_the_limit_grows_by_one_with_each_reply_up_to_the_most() -> None:
    async def work() -> list[float]:
        window, limits = Window(START + 3), []
        places = await take(window, START)
        for _ in range(5):
            window.answered(1.0)
            limits.append(window.limit)
        await give(places)
        return limits

    assert run(work()) == [START + 1, START + 2, START + 3, START + 3, START + 3]


def test_a_complaint_halves_the_limit_once_for_all_requests_that_were_sent_before() -> None:
    async def work() -> tuple[float, float]:
        window = Window(64)
        for _ in range(3):
            window.complained(0)
        first = window.limit
        window.complained(1)
        return first, window.limit

    assert run(work()) == (START / 2, START / 4)


def test_after_a_complaint_the_limit_grows_by_one_in_a_round() -> None:
    async def work() -> float:
        window = Window(64)
        window.complained(0)
        places = await take(window, 4)
        for _ in range(4):
            window.answered(1.0)
        await give(places)
        return window.limit

    # 4 + 1/4 = 4.25; + 1/4.25 = 4.485; + 1/4.485 = 4.708; + 1/4.708 = 4.921
    assert abs(run(work()) - 4.921) < 0.001


def test_the_limit_never_falls_below_one() -> None:
    async def work() -> float:
        window = Window(64)
        for round_ in range(20):
            window.complained(round_)
        return window.limit

    assert run(work()) == 1


def test_the_limit_does_not_grow_while_replies_are_much_slower_than_they_were() -> None:
    async def work() -> tuple[float, float]:
        window = Window(64)
        places = await take(window, START)
        window.answered(1.0)
        # The average moves by a tenth towards the latest: 1 + 0.1 * (100 - 1) = 10.9.
        window.answered(100.0)
        slow = window.limit
        assert slow == START + 1, f"10.9 is above {SLOWDOWN}"
        # 10.9 x 0.9 ** 10 is 3.8.
        for _ in range(20):
            window.answered(0.0)
        await give(places)
        return slow, window.limit

    slow, later = run(work())
    assert later > slow


def test_few_requests_under_way_are_no_reason_to_grow() -> None:
    async def work() -> float:
        window = Window(64)
        places = await take(window, 1)
        window.answered(1.0)
        await give(places)
        return window.limit

    assert run(work()) == START


def test_a_request_waits_for_a_place_and_comes_in_order() -> None:
    async def work() -> list[int]:
        window, order = Window(2), list[int]()

        async def one(n: int) -> None:
            async with window.place():
                order.append(n)
                await asyncio.sleep(0)

        await asyncio.gather(*map(one, range(50)))
        return order

    assert run(work()) == list(range(50))


def test_no_more_than_the_limit_are_under_way_after_a_complaint() -> None:
    async def work() -> int:
        window, under_way, most = Window(8), 0, 0
        window.complained(0)
        window.complained(1)

        async def one() -> None:
            nonlocal under_way, most
            async with window.place():
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.001)
                under_way -= 1

        await asyncio.gather(*(one() for _ in range(40)))
        return most

    assert run(work()) == 2


def test_a_place_that_a_cancelled_request_was_woken_for_is_not_lost() -> None:
    async def work() -> None:
        window = Window(1)
        (held,) = await take(window, 1)

        async def one() -> None:
            async with window.place():
                await asyncio.sleep(0)

        first, second = asyncio.create_task(one()), asyncio.create_task(one())
        await asyncio.sleep(0)
        await give([held])  # wakes the first
        first.cancel()
        await second

    run(work())


def test_a_request_that_is_cancelled_while_it_waits_stands_in_nobodys_way() -> None:
    async def work() -> None:
        window = Window(1)
        (held,) = await take(window, 1)

        async def one() -> None:
            async with window.place():
                await asyncio.sleep(0)

        first, second = asyncio.create_task(one()), asyncio.create_task(one())
        await asyncio.sleep(0)
        first.cancel()  # it has not heard of it yet when the place is given back
        await give([held])
        await second
        third = asyncio.create_task(one())
        await third

    run(work())


def test_a_pause_that_the_server_asks_for_holds_for_everyone() -> None:
    async def work() -> float:
        window = Window(8)
        window.complained(0, pause_s=0.3)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await give(await take(window, 2))
        return loop.time() - began

    assert 0.3 <= run(work()) < 2


def test_a_request_that_is_cancelled_in_a_pause_gives_its_place_back() -> None:
    async def work() -> None:
        window = Window(1)
        window.complained(0, pause_s=0.2)

        async def one() -> None:
            async with window.place():
                pass

        waiting = asyncio.create_task(one())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await one()

    run(work())
