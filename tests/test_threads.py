import threading

import cv2
import pytest
import torch

from focaldiffusion.threads import available_threads, in_parallel, network_threads, threads


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_the_order_of_the_items(count):
    with threads(count):
        assert list(in_parallel(lambda item: item**2, range(20))) == [i**2 for i in range(20)]


def test_work_runs_on_the_number_of_threads():
    together = threading.Barrier(2, timeout=60)
    with threads(2):
        list(in_parallel(lambda _: together.wait(), range(2)))


def test_nested_work_stays_in_its_thread():
    def outer(_):
        here = threading.get_ident()
        return set(in_parallel(lambda _: threading.get_ident(), range(3))) == {here}

    with threads(2):
        assert all(in_parallel(outer, range(4)))


def test_no_more_than_one_item_waits():
    taken = []

    def items():
        for index in range(10):
            taken.append(index)
            yield index

    with threads(2):
        results = in_parallel(lambda item: item, items())
        next(results)
        assert len(taken) == 3


def test_an_error_reaches_the_caller():
    def fail(item):
        raise ValueError(f"item {item}")

    with threads(2), pytest.raises(ValueError, match="item 0"):
        list(in_parallel(fail, range(5)))


def test_modes_of_torch_carry_over():
    with threads(2), torch.inference_mode():
        assert all(in_parallel(lambda _: torch.is_inference_mode_enabled(), range(2)))
    with threads(2), torch.no_grad():
        assert not any(in_parallel(lambda _: torch.is_grad_enabled(), range(2)))
    weight = torch.ones(3, requires_grad=True)
    with threads(2):
        sum(in_parallel(lambda factor: factor * weight, range(4))).sum().backward()
    assert weight.grad.tolist() == [6, 6, 6]


def test_torch_and_opencv_get_their_threads_back():
    before = torch.get_num_threads(), cv2.getNumThreads()
    with threads():
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


def test_torch_and_opencv_stay_on_one_thread_until_the_last_block_ends():
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    first_has_begun, second_has_begun = threading.Event(), threading.Event()

    def first():
        with threads(1):
            first_has_begun.set()
            assert second_has_begun.wait(60)

    try:
        other = threading.Thread(target=first)
        other.start()
        assert first_has_begun.wait(60)
        with threads(1):
            second_has_begun.set()
            other.join()
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_all_cpus_are_used_unless_a_number_is_given():
    together = threading.Barrier(available_threads(), timeout=60)
    with threads():
        list(in_parallel(lambda _: together.wait(), range(available_threads())))


def test_a_network_computes_on_the_threads_of_the_block():
    before = torch.get_num_threads()
    with threads(3):
        with network_threads():
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 1
    with network_threads():
        assert torch.get_num_threads() == before
