from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from rooms import SIZE, Rooms, photographed, room, source

from focaldiffusion.data.cache import Cache, write_cache
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.loading import batches
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.data.photographer import photograph
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sample_file import read_sample, write_sample
from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import estimate_depth
from focaldiffusion.stack import FocalStack
from focaldiffusion.training.examples import examples_of

NOISY = {"simulator_kwargs": {"noise_std_lsb_range": [1.0, 1.0]}}


def mixture(count: int = 4, seed: int = 0, options: dict = NOISY) -> Mixture:
    return Mixture([(source(options=options), Rooms(count))], seed, shuffle=True)


def cached(directory, **changes) -> Cache:
    return Cache(source("cached", dataset_type="cache", data_root=str(directory), **changes))


def test_a_cache_holds_what_was_simulated(tmp_path):
    mixed = mixture()
    reports = []
    write_cache(mixed, tmp_path / "c", meter=Meter(lambda *counts: reports.append(counts)))
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]
    where = source("cached", dataset_type="cache", data_root=str(tmp_path / "c"))
    dataset = open_dataset(where)
    assert len(dataset) == 4
    for i, batch in enumerate(batches(mixed, range(4), 1)):
        expected, found = batch.sample(0), dataset[i]
        # 8-bit frames are exact, but for the rounding of float32; the image has 16 bits.
        torch.testing.assert_close(found.stack.images, expected.stack.images, rtol=0, atol=2e-7)
        torch.testing.assert_close(found.all_in_focus, expected.all_in_focus, rtol=0, atol=2e-5)
        assert torch.equal(found.depth_m[found.valid], expected.depth_m[found.valid])
        assert torch.equal(found.valid, expected.valid)
        assert torch.equal(found.stack.focus_distances_m, expected.stack.focus_distances_m)
        assert found.stack.camera == expected.stack.camera
        assert found.source == expected.source
        sample = mixed.draw(i).sample
        assert dataset.name(i) == f"{i:06d} rooms/room_{sample}"
        assert dataset.scene_name(i) == f"house_{sample // 2}"


def test_the_index_says_how_the_stacks_were_made(tmp_path):
    write_cache(mixture(), tmp_path, count=2)
    index = json.loads((tmp_path / "cache.json").read_text())
    assert index["seed"] == 0
    kwargs = index["sources"][0]["options"]["simulator_kwargs"]
    assert kwargs["noise_std_lsb_range"] == [1.0, 1.0]
    assert len(index["samples"]) == 2


def test_an_interrupted_cache_is_continued_and_refused_until_then(tmp_path):
    write_cache(mixture(), tmp_path)
    lost = tmp_path / "samples" / "000002.safetensors"
    kept = tmp_path / "samples" / "000001.safetensors"
    before = lost.read_bytes()
    lost.unlink()
    with pytest.raises(InputError, match=r"000002.safetensors: no such file; 1 of the 4 samples"):
        cached(tmp_path)
    some = cached(tmp_path, allow_missing=True)
    assert len(some) == 3
    assert len(some.skipped) == 1
    assert "000002.safetensors: no such file" in some.skipped[0]
    assert some.name(2).startswith("000003")
    written = kept.stat().st_mtime_ns
    write_cache(mixture(), tmp_path)
    assert kept.stat().st_mtime_ns == written
    assert lost.read_bytes() == before
    assert len(cached(tmp_path)) == 4
    assert not list(tmp_path.rglob(".*"))


def test_another_cache_is_not_written_over(tmp_path):
    write_cache(mixture(), tmp_path, count=1)
    with pytest.raises(InputError, match=r"holds a cache with other seed\. Choose another folder"):
        write_cache(mixture(seed=1), tmp_path, count=1)
    with pytest.raises(InputError, match="holds a cache with other sources"):
        write_cache(mixture(options={}), tmp_path, count=1)


def test_options_that_ask_for_other_stacks_are_refused(tmp_path):
    write_cache(mixture(), tmp_path, count=1)
    assert len(cached(tmp_path, options=NOISY)) == 1
    assert len(cached(tmp_path, options={"transforms": {"flip": True}})) == 1
    other = {"camera_defaults": {"f_number": 1.4}, "depth_scale": 2.0}
    message = "cached: camera_defaults, depth_scale differ from what the finished stacks of"
    with pytest.raises(InputError, match=message):
        cached(tmp_path, options=other)


def test_a_cache_is_of_one_split_and_has_no_list(tmp_path):
    write_cache(mixture(), tmp_path, count=1)
    with pytest.raises(
        InputError, match=r"holds stacks of train, not of val\. Name the cache in da"
    ):
        cached(tmp_path, split="val")
    with pytest.raises(InputError, match=r"a file list \(a\.csv\) with dataset_type cache"):
        cached(tmp_path, filelist="a.csv")


def test_bad_caches_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cache.json: no such file or folder. Write the cache"):
        cached(tmp_path)
    (tmp_path / "cache.json").write_text("{}")
    with pytest.raises(InputError, match=r"cache.json: is not the index of a cache"):
        cached(tmp_path)
    (tmp_path / "cache.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match=r"format 99; expected 2\. Write the cache again"):
        cached(tmp_path)
    (tmp_path / "cache.json").unlink()
    write_cache(mixture(), tmp_path, count=1)
    path = tmp_path / "samples" / "000000.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"000000.safetensors: is missing or damaged"):
        cached(tmp_path)[0]


@pytest.mark.parametrize("bit_depth", [8, 16, None])
def test_light_comes_back_in_the_bits_that_it_has(tmp_path, bit_depth):
    options = {"simulator_kwargs": {"bit_depth": bit_depth}}
    sample = photograph(room(), source(options=options), torch.Generator().manual_seed(0))
    write_sample(tmp_path / "s", sample)
    found = read_sample(tmp_path / "s").stack.images
    # Half a code of 16 bits is 1.7e-5 in the steepest place of the curve, at white.
    tolerance = {8: 2e-7, 16: 2e-7, None: 1.8e-5}[bit_depth]
    torch.testing.assert_close(found, sample.stack.images, rtol=0, atol=tolerance)


def test_infinite_focus_and_an_unknown_camera_survive(tmp_path):
    truth = room()
    camera = Camera(200.0, 0.02, SIZE, principal_point_px=(30.25, 20.5))
    stack = FocalStack(torch.rand(2, 3, *SIZE), camera, torch.tensor([1.0, math.inf]))
    write_sample(tmp_path / "s", StackSample(stack, truth.depth_m, truth.valid, None, "far"))
    found = read_sample(tmp_path / "s")
    assert found.stack.camera == camera
    assert found.stack.focus_distances_m.tolist() == [1.0, math.inf]
    assert found.all_in_focus is None
    positions = torch.tensor([0.0, 1e-3])
    write_sample(tmp_path / "p", photographed(focus_positions_m=positions))
    found = read_sample(tmp_path / "p")
    assert found.stack.camera is None
    assert torch.equal(found.stack.focus_positions_m, positions)


# With evidence


def test_evidence_comes_back_to_the_quantisation_of_its_posterior(tmp_path):
    sample = photograph(room(), source(), torch.Generator().manual_seed(0))
    estimate = estimate_depth(sample.stack, PSF()).mapped(torch.Tensor.clone)
    write_sample(tmp_path / "s", replace(sample, estimate=estimate))
    found = read_sample(tmp_path / "s").estimate
    for name in ("coordinate", "agreement", "confidence"):
        assert torch.equal(getattr(found, name), getattr(estimate, name))
    for name in ("calibration", "psf", "residual_rms"):
        assert getattr(found, name) == getattr(estimate, name)
    there, here = found.evidence, estimate.evidence
    assert there.axis == here.axis
    for name in ("hypotheses", "sharpest", "never_sharp"):
        assert torch.equal(getattr(there, name), getattr(here, name))
    torch.testing.assert_close(there.all_in_focus, here.all_in_focus, rtol=0, atol=2e-5)
    span = float(here.hypotheses[-1] - here.hypotheses[0])
    for one, other, scale in zip(there.wide.chunk(2), here.wide.chunk(2), (span, 1), strict=True):
        # Half a code of 16 bits, and rounding of float32.
        assert (one - other).abs().max() <= 0.51 * scale / 65535
    torch.testing.assert_close(there.posterior.sum(0), torch.ones(SIZE))
    # Half a code of the root of the ratio to the peak, before both are normalised.
    ratios = [one.posterior / one.posterior.amax(0) for one in (there, here)]
    assert (ratios[0].sqrt() - ratios[1].sqrt()).abs().max() <= 0.5 / 255 + 1e-6


def test_a_found_scale_comes_back(tmp_path):
    sample = photograph(room(), source(), torch.Generator().manual_seed(0))
    unknown = replace(sample, stack=replace(sample.stack, camera=None))
    estimate = estimate_depth(unknown.stack, PSF()).mapped(torch.Tensor.clone)
    assert estimate.calibration.is_measured
    write_sample(tmp_path / "s", replace(unknown, estimate=estimate))
    assert read_sample(tmp_path / "s").estimate.calibration == estimate.calibration


def test_what_is_trained_on_is_the_same_with_and_without_a_cache(tmp_path):
    mixed = mixture(count=2)
    write_cache(mixed, tmp_path / "c", with_evidence=True)
    assert json.loads((tmp_path / "c/cache.json").read_text())["with_evidence"] is True
    where = source("cached", dataset_type="cache", data_root=str(tmp_path / "c"), options=NOISY)
    kept = Mixture([(where, open_dataset(where))], 0, shuffle=False)
    (made,) = batches(mixed, range(2), 2, with_estimates=True)
    (read,) = batches(kept, range(2), 2, with_estimates=True)
    there, here = (examples_of(one, "log", with_stacks=False) for one in (read, made))
    assert torch.equal(there.truth.valid, here.truth.valid)
    assert there.truth.codes == here.truth.codes
    assert torch.equal(there.proposal.depth_code, here.proposal.depth_code)
    close = {"rtol": 0, "atol": 1e-3}
    torch.testing.assert_close(there.truth.depth_code, here.truth.depth_code, **close)
    torch.testing.assert_close(there.truth.image, here.truth.image, **close)
    # Half a code moves a mass by 0.4 % of the highest, and several share a bin; the spread of a
    # posterior is a root.
    for name in ("histogram", "features"):
        maps = getattr(there.proposal, name), getattr(here.proposal, name)
        torch.testing.assert_close(*maps, rtol=0, atol=2e-2)


def test_a_cache_without_evidence_is_not_continued_with_it(tmp_path):
    write_cache(mixture(), tmp_path, count=1)
    with pytest.raises(InputError, match="holds a cache with other with_evidence"):
        write_cache(mixture(), tmp_path, count=1, with_evidence=True)


def test_a_sample_that_was_altered_is_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    write_cache(mixture(1), tmp_path / "c", count=1)
    path = next((tmp_path / "c" / "samples").iterdir())
    sound = path.read_bytes()
    path.write_bytes(sound[:-9] + bytes([sound[-9] ^ 1]) + sound[-8:])
    with pytest.raises(InputError, match="SHA-256 differs"):
        read_sample(path)
    # Files of older versions have no digest.
    path.write_bytes(sound)
    tensors = load_file(path)
    length = int.from_bytes(sound[:8], "little")
    notes = json.loads(json.loads(sound[8 : 8 + length])["__metadata__"]["notes"])
    del notes["sha256"]
    for value in (1.0, math.nan, math.inf, -1.0, 0.0):
        tensors["depth_m"][tensors["valid"]] = value
        save_file(tensors, path, metadata={"notes": json.dumps(notes)})
        if value == 1.0:
            assert float(read_sample(path).depth_m.nan_to_num(1).max()) == 1.0
        else:
            with pytest.raises(InputError, match="depth is not positive and finite"):
                read_sample(path)
