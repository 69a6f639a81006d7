"""Results are computed ahead of whoever asks, and come in the order of their items."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from pipeline.ahead import computed_ahead


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("ahead", [0, 1, 2, 9])
def test_results_come_with_their_items_in_order(threads: int, ahead: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        assert list(computed_ahead(pool, lambda n: n**2, range(7), ahead)) == [(n, n**2) for n in range(7)]
        assert list(computed_ahead(pool, str, [], ahead)) == []


def test_so_many_are_begun_before_they_are_asked_for_and_no_more() -> None:
    begun, third = list[int](), Event()

    def begin(number: int) -> int:
        begun.append(number)
        if number == 2:
            third.set()
        return number

    with ThreadPoolExecutor(1) as pool:
        results = computed_ahead(pool, begin, iter(range(9)), 2)
        assert begun == []
        assert next(results) == (0, 0)
        assert third.wait(60)
        pool.submit(int).result()  # what was submitted before is done
        assert begun == [0, 1, 2]
        results.close()


def test_an_error_is_raised_in_place_of_its_result_and_nothing_more_is_begun() -> None:
    begun = list[int]()

    def broken(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ValueError("damaged")
        return number

    with ThreadPoolExecutor(1) as pool:
        results = computed_ahead(pool, broken, range(9), 1)
        assert next(results) == (0, 0)
        with pytest.raises(ValueError, match="damaged"):
            next(results)
    assert begun in ([0, 1], [0, 1, 2])  # the one after it may have begun already
