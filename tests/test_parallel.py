import os
import signal
import time

import pytest

from cfseg.errors import ResourceError
from cfseg.parallel import cores, in_processes


def square(number: int) -> int:
    return number * number


def dies_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fails(number: int) -> int:
    raise ValueError(number)


def where(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def test_one_job_works_here():
    assert list(in_processes(square, range(5), 1)) == [0, 1, 4, 9, 16]
    assert set(in_processes(where, [1], 8)) == {os.getpid()}


@pytest.mark.slow
def test_several_processes_do_each_item_once():
    assert sorted(in_processes(square, range(9), 2)) == [n * n for n in range(9)]
    assert os.getpid() not in set(in_processes(where, range(4), 2))


@pytest.mark.slow
def test_a_process_that_dies_ends_it_with_one_clear_error():
    with pytest.raises(ResourceError, match="fewer --jobs") as caught:
        list(in_processes(dies_at_three, range(20), 2))
    assert caught.value.exit_code == 6


@pytest.mark.slow
def test_an_error_in_a_process_is_that_error():
    with pytest.raises(ValueError, match=r"^[01]$"):
        list(in_processes(fails, range(2), 2))


def test_there_is_a_core():
    assert 1 <= cores() <= (os.cpu_count() or 1)
