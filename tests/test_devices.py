"""The device that torch computes on."""

from __future__ import annotations

import pytest
import torch

from focaldiffusion.devices import resolve_device
from focaldiffusion.errors import InputError


def test_auto_is_a_device_that_computes() -> None:
    name = resolve_device("auto")
    expected = "cuda" if torch.cuda.is_available() else "mps"
    assert name == (expected if torch.accelerator.is_available() else "cpu")
    assert torch.zeros(1, device=name).item() == 0


@pytest.mark.parametrize("name", ["abacus", "meta", "cuda:99", "", "cpu:x"])
def test_a_device_that_does_not_compute_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"^device {name}: torch cannot compute there \(.+\)"):
        resolve_device(name)


def test_a_device_that_computes_keeps_its_name() -> None:
    assert resolve_device("cpu") == "cpu"
