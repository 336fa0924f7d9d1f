from __future__ import annotations

import pickle
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rooms import Rooms, source

from focaldiffusion.data.mixture import Mixture
from focaldiffusion.errors import InputError


def mixture(*members: tuple[int, float], seed: int = 0, shuffle: bool = True, **changes) -> Mixture:
    """Rooms by number and weight."""
    opened = [
        (source(f"source {i}", weight=weight, **changes), Rooms(count))
        for i, (count, weight) in enumerate(members)
    ]
    return Mixture(opened, seed, shuffle=shuffle)


@given(
    st.lists(st.tuples(st.integers(5, 60), st.floats(0.2, 5.0)), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_every_epoch_has_the_share_of_each_weight_to_within_one_sample(members, epoch):
    mixed = mixture(*members)
    total, weights = sum(count for count, _ in members), [weight for _, weight in members]
    assert len(mixed) == total
    drawn = Counter(mixed.draw(epoch * total + i).source for i in range(total))
    for i, weight in enumerate(weights):
        assert abs(drawn[i] - total * weight / sum(weights)) < 1


def test_nine_to_one_is_nine_to_one_all_along():
    mixed = mixture((500, 0.9), (500, 0.1))
    sources = [mixed.draw(i).source for i in range(1000)]
    for stop in (10, 100, 350, 1000):
        assert sources[:stop].count(0) == pytest.approx(0.9 * stop, abs=1)


def test_a_source_repeats_no_sample_before_all_had_their_turn():
    # The large source is seen in part in each epoch, the small one several times.
    mixed = mixture((50, 1.0), (7, 1.0))
    draws = [mixed.draw(i) for i in range(10 * len(mixed))]
    for i, count in enumerate((50, 7)):
        samples = [draw.sample for draw in draws if draw.source == i]
        passes = [samples[k : k + count] for k in range(0, len(samples) - count + 1, count)]
        assert all(sorted(one) == list(range(count)) for one in passes)
        assert passes[0] != passes[1]
    assert len({draw.seed for draw in draws}) == len(draws)


def test_a_position_alone_says_what_comes():
    first, resumed = mixture((50, 2.0), (7, 1.0)), mixture((50, 2.0), (7, 1.0))
    run = [first.draw(i) for i in range(200)]
    assert [resumed.draw(i) for i in reversed(range(150, 200))] == run[:149:-1]
    other = mixture((50, 2.0), (7, 1.0), seed=1)
    assert [other.draw(i).sample for i in range(200)] != [draw.sample for draw in run]


def test_generators_of_a_draw_are_its_own():
    one, two = (mixture((5, 1.0)).draw(i) for i in (0, 1))
    numbers = [
        torch.rand(4, generator=draw.generator(purpose)).tolist()
        for draw in (one, one, two)
        for purpose in ("transforms", "simulation")
    ]
    assert numbers[:2] == numbers[2:4]
    assert len({tuple(n) for n in numbers}) == 4


def test_validation_is_every_sample_once_in_order_whatever_the_weights():
    mixed = mixture((3, 5.0), (2, 0.1), shuffle=False)
    draws = [mixed.draw(i) for i in range(5)]
    assert [(d.source, d.sample) for d in draws] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    # Every epoch is the same, to the last bit of noise.
    assert [mixed.draw(i) for i in range(5, 10)] == draws


def test_max_samples_are_spread_over_the_data_set():
    mixed = mixture((100, 1.0), shuffle=False, max_samples=4)
    assert [mixed.draw(i).sample for i in range(len(mixed))] == [0, 25, 50, 75]
    assert len(mixture((3, 1.0), max_samples=4)) == 3


def test_a_sample_is_read_and_varied_the_same_at_each_visit():
    options = {"transforms": {"random_crop": True, "scale_range": [0.5, 1.0], "flip": True}}
    mixed = mixture((4, 1.0), options=options, image_size=(24, 32))
    one, again = mixed[2], pickle.loads(pickle.dumps(mixed))[2]
    assert one.size == (24, 32)
    assert torch.equal(one.all_in_focus, again.all_in_focus)
    assert one.source == f"room {mixed.draw(2).sample}"


def test_a_damaged_sample_is_an_error_even_where_missing_ones_are_allowed():
    members = [(source(allow_missing=True), Rooms(3, damaged=frozenset({1})))]
    mixed = Mixture(members, 0, shuffle=False)
    assert mixed[0].source == "room 0"
    with pytest.raises(InputError, match="room 1: is damaged"):
        mixed[1]


def test_what_sources_skipped_is_listed():
    rooms = Rooms(2)
    rooms.skipped.append("room_9.png: no such file")
    assert Mixture([(source(), rooms)], 0, shuffle=True).skipped == [
        "rooms: room_9.png: no such file"
    ]


def test_mixtures_that_cannot_be_drawn_from_are_refused():
    with pytest.raises(InputError, match="at least one source, got none"):
        Mixture([], 0, shuffle=True)
    with pytest.raises(InputError, match=r"rooms: has no train samples\. Check its data_root"):
        Mixture([(source(), Rooms(0))], 0, shuffle=True)
    absent = Rooms(0)
    absent.skipped += ["a.png: no such file.", "b.png: no such file."]
    with pytest.raises(InputError, match=r"2 were skipped; the first: a.png: no such file\. Check"):
        Mixture([(source(), absent)], 0, shuffle=True)
    with pytest.raises(InputError, match=r"source 1: weight 0.001 gives it none of the 20 samples"):
        mixture((10, 1.0), (10, 0.001))
