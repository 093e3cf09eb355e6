"""workers.features.budget: memory that many threads share."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.features.budget import Budget

SOON_S = 0.1
TIMEOUT_S = 10


def taking(budget: Budget, amount: int) -> threading.Event:
    """Set once a thread of its own has got so much."""
    taken = threading.Event()

    def take() -> None:
        budget.take(amount)
        taken.set()

    threading.Thread(target=take, daemon=True).start()
    return taken


def test_who_asks_for_more_than_is_left_waits_until_enough_is_given_back() -> None:
    budget = Budget(10)
    budget.take(4)
    budget.take(6)

    # Given nothing left, when somebody asks for five
    five = taking(budget, 5)
    assert not five.wait(SOON_S)

    # Then four are not enough, and ten are
    budget.give_back(4)
    assert not five.wait(SOON_S)
    budget.give_back(6)
    assert five.wait(TIMEOUT_S)


def test_more_than_the_limit_is_given_alone() -> None:
    budget = Budget(10)
    budget.take(1)
    giant = taking(budget, 1000)
    assert not giant.wait(SOON_S)
    budget.give_back(1)
    assert giant.wait(TIMEOUT_S)

    # While it is out, not one is left; and given back it is the limit, not a thousand
    one = taking(budget, 1)
    assert not one.wait(SOON_S)
    budget.give_back(1000)
    assert one.wait(TIMEOUT_S)
    assert not taking(budget, 10).wait(SOON_S)


def test_what_fails_gives_back_what_it_took() -> None:
    budget = Budget(10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget.taken(10):
            raise ZeroDivisionError
    assert taking(budget, 10).wait(TIMEOUT_S)


def test_many_threads_never_have_more_than_the_limit() -> None:
    # Given eight threads that take and give back amounts of every size
    budget, lock, out, most = Budget(10), threading.Lock(), [0], [0]

    def use(amount: int) -> None:
        with budget.taken(amount):
            with lock:
                out[0] += amount
                most[0] = max(most[0], out[0])
            with lock:
                out[0] -= amount

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, [amount for amount in range(11) for _ in range(50)], timeout=TIMEOUT_S))

    # Then they never had more than ten together, and at the end nothing is out
    assert 0 < most[0] <= 10
    assert taking(budget, 10).wait(TIMEOUT_S)
