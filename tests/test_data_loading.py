from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rooms import Rooms, source

from focaldiffusion.config.data import DataConfig
from focaldiffusion.data.batch import StackBatch, moved
from focaldiffusion.data.loading import (
    _photographed,
    _Reader,
    _without_draws,
    batches,
    open_split,
    prepared,
)
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.errors import InputError

VARIED = {
    "transforms": {"random_crop": True, "scale_range": [0.5, 1.0], "flip": True, "contrast": 0.2},
    "simulator_kwargs": {
        "psf": "power_exponential",
        "aperture_stops": 1.0,
        "focus_spacing": "random",
        "noise_std_lsb_range": [0.0, 2.0],
        "exposure_jitter": 0.05,
        "shift_px": 0.5,
    },
}


def mixture(count: int = 6, *, shuffle: bool = True, **rooms) -> Mixture:
    where = source(options=VARIED, image_size=(24, 32), focal_stack_size=(2, 4))
    return Mixture([(where, Rooms(count, **rooms))], 7, shuffle=shuffle)


def assert_equal(one: StackBatch, two: StackBatch) -> None:
    for field in dataclasses.fields(StackBatch):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        else:
            assert a == b


def test_the_number_of_workers_changes_nothing():
    mixed = mixture()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # a worker has one
    try:
        alone = list(batches(mixed, range(8), 2))
    finally:
        torch.set_num_threads(threads)
    for workers in (1, 2):
        shared = list(batches(mixed, range(8), 2, num_workers=workers))
        assert len(shared) == len(alone) == 4
        for one, two in zip(alone, shared, strict=True):
            assert_equal(one, two)


FORKS_AFTER_THREADS = """
import cv2, numpy
from test_data_loading import batches, mixture
cv2.setNumThreads(4)
cv2.GaussianBlur(numpy.zeros((2000, 2000, 3), numpy.float32), (0, 0), 9)
assert len(list(batches(mixture(), range(4), 2, num_workers=2))) == 2
assert cv2.getNumThreads() == 4
"""


def test_workers_start_where_opencv_has_had_threads():
    # A worker that waits for threads that it does not have would wait for ever.
    command = [sys.executable, "-c", FORKS_AFTER_THREADS]
    subprocess.run(command, cwd=Path(__file__).parent, check=True, timeout=120)


UNDER_FORKSERVER = """
import torch
from functools import partial
from test_data_loading import kept_with, mixture, prepared
if __name__ == "__main__":
    torch.multiprocessing.set_start_method("forkserver")
    make_input = partial(kept_with, [torch.zeros(1) for _ in range(300)])
    assert len(list(prepared(mixture(), range(4), 2, make_input, num_workers=2))) == 2
"""


def kept_with(_tensors: list[torch.Tensor], batch: StackBatch, _draws: object) -> StackBatch:
    """An input made by a model of many tensors."""
    return batch


@pytest.mark.skipif(sys.platform != "linux", reason="forkserver is a default of Linux alone")
def test_a_reader_with_many_tensors_starts_whatever_the_default_start_method(tmp_path):
    script = tmp_path / "under_forkserver.py"
    script.write_text(UNDER_FORKSERVER)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        timeout=120,
    )


def test_a_run_resumes_in_the_middle_of_an_epoch():
    whole = list(batches(mixture(), range(10), 2))
    for one, two in zip(whole[2:], batches(mixture(), range(4, 10), 2), strict=True):
        assert_equal(one, two)


def test_loading_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    list(batches(mixture(), range(2), 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_positions_may_be_the_share_of_one_process():
    mixed = mixture()
    whole = list(batches(mixed, range(6), 1))
    share = list(batches(mixed, range(1, 6, 2), 1))
    for one, two in zip(whole[1::2], share, strict=True):
        assert_equal(one, two)


def test_the_last_batch_holds_the_rest_and_stacks_are_padded():
    found = list(batches(mixture(5, shuffle=False), range(5), 2))
    assert [len(batch) for batch in found] == [2, 2, 1]
    frames = {int(n) for batch in found for n in batch.slice_valid.sum(1)}
    assert frames <= {2, 3, 4}
    assert len(frames) > 1


def test_photographed_stacks_pass_through():
    (batch,) = batches(mixture(2, shuffle=False, stacks=True), range(2), 2)
    assert batch.focus_distances_m.isnan().all()
    assert batch.images.shape == (2, 2, 3, 24, 32)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_is_one_sentence_from_a_worker_too(workers):
    mixed = mixture(3, shuffle=False, damaged=frozenset({1}))
    loaded = batches(mixed, range(3), 1, num_workers=workers)
    assert next(loaded).sources == ("room 0",)
    with pytest.raises(InputError) as caught:
        next(loaded)
    assert str(caught.value) == "room 1: is damaged. Fetch it again."


@pytest.mark.parametrize("stacks", [False, True])
def test_what_is_made_after_the_workers_is_the_same(stacks):
    """The path of a GPU: samples from the workers, made into stacks by this process."""
    mixed = mixture(stacks=stacks)
    samples = _Reader(mixed, False, False, _without_draws)[[0, 1]]
    on_device = [moved(sample, "cpu") for sample in samples]
    (expected,) = batches(mixed, [0, 1], 2)
    ((_, made),) = _photographed(on_device, mixed, [0, 1], False)
    assert_equal(made, expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cached_input_is_not_read_again(workers):
    mixed = mixture(4, shuffle=False, damaged=frozenset({2}))

    def find_input(draws):
        return [(draws, torch.tensor([2.0]))] if draws[0].sample == 2 else None

    def make_input(batch, draws):
        return len(draws), batch if isinstance(batch, torch.Tensor) else batch.sources

    loaded = prepared(mixed, range(4), 1, make_input, num_workers=workers, find_input=find_input)
    found = [one for (one,) in loaded]
    assert found == [(1, ("room 0",)), (1, ("room 1",)), (1, torch.tensor([2.0])), (1, ("room 3",))]
    # Unchanged where this process makes the rest.
    ((_, cached),) = _Reader(mixed, False, False, make_input, find_input)[[2]]
    assert cached == torch.tensor([2.0])


def test_estimates_are_made_where_they_are_asked_for():
    mixed = mixture()
    (without,) = batches(mixed, [0, 1], 2)
    (alone,) = batches(mixed, [0, 1], 2, with_estimates=True)
    (shared,) = batches(mixed, [0, 1], 2, with_estimates=True, num_workers=1)
    assert without.estimates == (None, None)
    for one, two in zip(alone.estimates, shared.estimates, strict=True):
        assert torch.equal(one.coordinate, two.coordinate)
        assert torch.equal(one.evidence.posterior, two.evidence.posterior)
    moved = alone.to("cpu").sample(1).estimate
    assert torch.equal(moved.coordinate, alone.estimates[1].coordinate)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_photographs_what_the_cpu_does():
    quiet = {"simulator_kwargs": {**VARIED["simulator_kwargs"], "noise_std_lsb_range": [0, 0]}}
    where = source(options=quiet, focal_stack_size=(2, 4))
    mixed = Mixture([(where, Rooms(4))], 7, shuffle=True)
    for cpu, gpu in zip(
        batches(mixed, range(4), 2),
        batches(mixed, range(4), 2, num_workers=1, device="cuda"),
        strict=True,
    ):
        assert gpu.images.is_cuda
        assert gpu.focus_distances_m.is_cuda
        # One step of 8 bits where rounding falls to the other side.
        assert (cpu.images - gpu.images.cpu()).abs().max() < 0.01
        assert_equal(dataclasses.replace(cpu, images=gpu.images.cpu()), gpu.to("cpu"))


@pytest.mark.filterwarnings("error")
def test_more_workers_than_cores_are_nobody_elses_business():
    mixed = Mixture([(source(), Rooms(2))], 7, shuffle=True)
    workers = len(os.sched_getaffinity(0)) + 1
    assert len(list(batches(mixed, range(2), 1, num_workers=workers))) == 2


def test_a_split_without_data_names_the_key():
    with pytest.raises(InputError, match=r"has no data for val: give data\.val_sources"):
        open_split(DataConfig(), "val", 0)
