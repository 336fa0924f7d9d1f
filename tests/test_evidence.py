from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from focaldiffusion.evidence import Evidence

HYPOTHESES = torch.tensor([0.0, 1.0, 3.0])


def evidence(*posteriors: list[float], **changes) -> Evidence:
    """Evidence for one row of pixels with these posteriors."""
    posterior = torch.tensor(posteriors).T[:, None]
    size = posterior.shape[1:]
    fields = {
        "axis": "inverse_depth_dpt",
        "hypotheses": HYPOTHESES,
        "posterior": posterior,
        "all_in_focus": torch.zeros(3, *size),
        "sharpest": torch.zeros(size),
        "never_sharp": torch.zeros(size, dtype=torch.bool),
    }
    return Evidence(**{**fields, **changes})


def test_moments_are_those_of_the_posterior():
    found = evidence([0.5, 0.5, 0.0], [0.25, 0.25, 0.5])
    # By hand: means 1/2 and 7/4; variances 1/4 and 1/4 + 9/2 - 49/16.
    torch.testing.assert_close(found.mean, torch.tensor([[0.5, 1.75]]))
    torch.testing.assert_close(found.std, torch.tensor([[0.5, math.sqrt(27 / 16)]]))


def test_the_posterior_along_a_surface_is_interpolated():
    row = [0.5, 0.2, 0.3]
    found = evidence(row, row, row, row, row)
    # Half-way to 1, at 1, half-way to 3, and beyond either end.
    surface = torch.tensor([[0.5, 1.0, 2.0, -1.0, 9.0]])
    expected = torch.tensor([[0.35, 0.2, 0.25, 0.5, 0.3]])
    torch.testing.assert_close(found.posterior_at(surface), expected)


def test_doubt_is_zero_at_the_peak_and_bounded():
    found = evidence([0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0])
    utmost = -math.log(1e-30)
    expected = torch.tensor([[0, math.log(2), math.log(2)], [0, 0, 0], [utmost, 0, utmost]])
    torch.testing.assert_close(found.doubt[:, 0], expected.T)


def test_without_its_posterior_the_evidence_keeps_the_rest():
    found = evidence([0.5, 0.25, 0.25], [0.0, 1.0, 0.0])
    left = found.without_posterior()
    torch.testing.assert_close(left.posterior, torch.full((3, 1, 2), 1 / 3))
    assert left.posterior.untyped_storage().size() == 1 * left.posterior.element_size()
    assert left.hypotheses is found.hypotheses


def test_a_flat_posterior_is_uncertain_and_a_single_peak_certain():
    found = evidence([1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0])
    torch.testing.assert_close(found.entropy, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(found.certainty, torch.tensor([[0.0, 1.0]]), atol=1e-6, rtol=0)


def test_certainty_is_never_negative():
    # Wider than ignorance: all probability at the two ends.
    assert evidence([0.5, 0.0, 0.5]).certainty.item() == 0


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ("posterior", (2, 1, 1)),
        ("all_in_focus", (1, 1, 1)),
        ("sharpest", (1, 2)),
        ("never_sharp", (2, 1)),
    ],
)
def test_a_field_of_another_shape_is_refused(field, shape):
    with pytest.raises(ValueError, match=rf"Evidence.{field}: got shape"):
        evidence([1.0, 0.0, 0.0], **{field: torch.zeros(shape)})


def test_strips_give_the_doubt_of_the_whole(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    posterior = torch.rand(3, 11, 8, generator=draw).softmax(0)
    found = replace(
        evidence([1.0, 0.0, 0.0]),
        posterior=posterior,
        all_in_focus=torch.zeros(3, 11, 8),
        sharpest=torch.zeros(11, 8),
        never_sharp=torch.zeros(11, 8, dtype=torch.bool),
    )
    whole = found.doubt, found.doubt_of_blocks(2), found.certainty
    monkeypatch.setattr("focaldiffusion.strips._OF_A_CACHE", 1)
    strips = found.doubt, found.doubt_of_blocks(2), found.certainty
    assert all(torch.equal(*both) for both in zip(whole, strips, strict=True))
    torch.testing.assert_close(whole[0], -(posterior / posterior.amax(0)).log())
    # Four pixels a block; the last row of blocks has two.
    doubt = whole[0]
    torch.testing.assert_close(whole[1][:, 0, 0], doubt[:, :2, :2].mean((1, 2)))
    torch.testing.assert_close(whole[1][:, 5, 3], doubt[:, 10, 6:].mean(1))
