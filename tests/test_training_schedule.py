"""Which stacks a step takes, what is due after it, and at which learning rate."""

from __future__ import annotations

import math

import pytest

from focaldiffusion.config.run import SchedulerConfig, TrainingConfig
from focaldiffusion.errors import InputError
from focaldiffusion.training.schedule import Schedule, learning_rate_factor


def schedule(**changes: int) -> Schedule:
    values = {"batch_size": 2, "accumulation": 1, "processes": 1, "epoch": 7, "epochs": 3}
    return Schedule(**{**values, **changes})


def test_steps_cross_epochs_and_the_rest_is_left_out() -> None:
    assert schedule().steps == 10  # of 21 stacks
    assert [schedule().epochs_after(step) for step in (0, 3, 4, 7, 9, 10)] == [0, 0, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"accumulation": 2}, {"processes": 2}),
        ({"accumulation": 4}, {"accumulation": 2, "processes": 2}),
        ({"batch_size": 4}, {"processes": 2}),
    ],
)
def test_a_step_has_the_same_stacks_however_it_is_shared(
    one: dict[str, int], other: dict[str, int]
) -> None:
    def of_steps(shared: Schedule, first_step: int) -> list[set[int]]:
        parts = [
            shared.positions(process, first_step, lambda position: (position % 3, 1))
            for process in range(shared.processes)
        ]
        count = shared.batch_size * shared.accumulation
        return [
            {position for part in parts for position in part[count * step : count * (step + 1)]}
            for step in range(shared.steps - first_step)
        ]

    assert of_steps(schedule(**one), 0) == of_steps(schedule(**other), 0)
    assert of_steps(schedule(**one), 2) == of_steps(schedule(**other), 0)[2:]
    assert of_steps(schedule(**one), 0)[1] == {4, 5, 6, 7} or schedule(**one).stacks_per_step == 8


def test_what_is_due() -> None:
    training = TrainingConfig(val_every_n_epochs=2, save_every_n_epochs=1, save_every_n_steps=3)
    due = [schedule().due(step, training) for step in range(1, 11)]
    # Epochs end in steps 4, 7 and 10.
    assert [step for step, (validates, _) in enumerate(due, 1) if validates] == [7, 10]
    assert [step for step, (_, saves) in enumerate(due, 1) if saves] == [3, 4, 6, 7, 9, 10]


def test_too_few_stacks_for_a_step_are_named() -> None:
    with pytest.raises(InputError, match=r"1 epochs of 7 samples are fewer than the 8 stacks of"):
        schedule(accumulation=4, epochs=1)


def test_the_learning_rate_rises_along_a_line_and_falls() -> None:
    def factors(kind: str) -> list[float]:
        scheduler = SchedulerConfig(type=kind, warmup_steps=3)
        return [learning_rate_factor(scheduler, step, 7) for step in range(7)]

    assert factors("constant") == [0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert factors("linear") == [0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]
    cosine = [(1 + math.cos(math.pi * done / 4)) / 2 for done in range(4)]
    assert factors("cosine") == pytest.approx([0.25, 0.5, 0.75, *cosine])
