"""Parts of gpu.py without large networks: agreement, infer and simulator."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.data.procedural.scenes import make_scene
from focaldiffusion.fusion.fuse import frame_weights
from focaldiffusion.fusion.highlights import spare_highlights
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.psf import PSF
from focaldiffusion.reconstruction import PHYSICS, Settings, reconstruct
from focaldiffusion.recovery import estimate_depth
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import capture, filled_inverse_depth
from focaldiffusion.simulation.render import layer_planes, render
from focaldiffusion.solve.complete import complete
from focaldiffusion.solve.consistency import confidence, rerender_residual
from focaldiffusion.solve.doubts import examined_calibration
from focaldiffusion.solve.outlines import with_outlines
from focaldiffusion.solve.sharpness import sweep_sharpness
from focaldiffusion.solve.sweep import sweep
from focaldiffusion.stack import FocalStack

if TYPE_CHECKING:
    from gpu import Probe

_SEED, _FRAMES = 3, 5
# Rounding of float32, and of convolutions in TF32, moves continuous results by less than these.
_LIGHT = 1e-3
_POSTERIOR = 0.01
_CONFIDENCE = 0.02
_BLUR_PX = 0.1  # of blur diameter, by which a surface may move
_NETWORK = 0.02  # standard deviations of the output
# Share of pixels that may differ by more: ties between labels, planes and segments fall either way.
_FEW, _SOME = 0.001, 0.05


@dataclass(frozen=True)
class _Place:
    """Where, and in which numbers, a stage is computed."""

    device: torch.device
    dtype: torch.dtype

    def of(self, value: Any) -> Any:
        """A tensor, or a dataclass of tensors, in this place; anything else unchanged."""
        if isinstance(value, Tensor):
            return value.to(self.device, self.dtype if value.is_floating_point() else None)
        if isinstance(value, FocalStack):
            # Like a stack that was read: its focus settings stay on the CPU.
            moved = value.at_working_size(device=self.device)
            return replace(moved, images=self.of(moved.images), frames=None)
        if is_dataclass(value) and not isinstance(value, type):
            changed = {one.name: self.of(getattr(value, one.name)) for one in fields(value)}
            return replace(value, **changed)
        return value


@dataclass(frozen=True)
class _Comparison:
    """Compares stages in two places, each with the inputs of the first."""

    probe: Probe
    here: _Place
    there: _Place

    def __call__(
        self,
        name: str,
        stage: Callable[..., Tensor],
        *inputs: Any,
        tolerance: float,
        share: float,
        scale: float = 1.0,
    ) -> None:
        """Add a row on a stage, whose differences are multiplied by `scale`."""
        with self.probe.guarded(name):
            one, other = (
                stage(*map(place.of, inputs)).detach().cpu().double()
                for place in (self.here, self.there)
            )
            difference = scale * (other - one).abs().flatten()
            if not bool(difference.isfinite().all()):
                raise ValueError("the results are not finite")
            beyond = float((difference > tolerance).double().mean())
            self.probe.row(
                name,
                largest_difference=float(difference.max()),
                median=float(difference.median()),
                tolerance=tolerance,
                share_beyond=beyond,
                allowed=share,
                agrees=beyond <= share,
            )


def agreement(probe: Probe) -> None:
    """Every stage on the GPU and on the CPU; if tiny, on the CPU in single and double precision."""
    cpu = torch.device("cpu")
    here = _Place(cpu, torch.float64 if probe.tiny else torch.float32)
    compare = _Comparison(probe, here, _Place(torch.device(probe.device), torch.float32))
    scene = make_scene(_SEED, (48, 64) if probe.tiny else (480, 640))
    _stages(compare, here, scene)
    stack = _photographed(scene)
    scale = scene.blur_scale_px_m
    span = scale * float(stack.focus_coordinates.max() - stack.focus_coordinates.min())
    whole = partial(compare, tolerance=_BLUR_PX, share=_SOME)
    for name, given, pixels in (
        ("all stages", stack, scale),
        ("all stages, lens unknown", replace(stack, camera=None), scale),
        ("all stages, order only", FocalStack(stack.images), span),
    ):

        def surface(stack: FocalStack) -> Tensor:
            return estimate_depth(stack, PSF(), check_lens=True).coordinate

        whole(name, surface, given, scale=pixels)
    with probe.guarded("networks"):
        _networks(compare, here, stack)


def _stages(compare: _Comparison, here: _Place, scene: Scene) -> None:
    """The stages of the physical estimate, each from the results of the ones before."""
    psf, scale = PSF(), scene.blur_scale_px_m
    focus_m = _focus_m(scene)

    def frames(scene: Scene) -> Tensor:
        return capture(scene, focus_m, bit_depth=None).images

    compare("simulate [linear light]", frames, scene, tolerance=_LIGHT, share=_FEW)
    stack = here.of(_photographed(scene))

    def blur_scale(stack: FocalStack) -> Tensor:
        found = examined_calibration(stack, psf, find_blur=True)
        assert found.measured is not None
        return torch.tensor([found.measured.value / scale, found.trust])

    compare("calibrate [relative]", blur_scale, stack, tolerance=1e-3, share=0)

    def swept(stack: FocalStack) -> Any:
        with torch.no_grad():
            return sweep(stack, scale, psf)

    evidence = swept(stack)

    def posterior(stack: FocalStack) -> Tensor:
        return swept(stack).posterior

    compare("sweep: posterior", posterior, stack, tolerance=_POSTERIOR, share=_FEW)

    def sharpest(stack: FocalStack) -> Tensor:
        return swept(stack).sharpest

    in_pixels = {"tolerance": _BLUR_PX, "share": _SOME, "scale": scale}
    compare("sweep: sharpest [px of blur]", sharpest, stack, **in_pixels)

    def by_sharpness(stack: FocalStack) -> Tensor:
        return sweep_sharpness(stack).posterior

    compare("sharpness: posterior", by_sharpness, stack, tolerance=_POSTERIOR, share=_FEW)
    background = float(stack.focus_coordinates.min())

    def completed(evidence: Any) -> Tensor:
        return complete(evidence, background=background).coordinate

    compare("complete [px of blur]", completed, evidence, **in_pixels)
    completion = complete(evidence, background=background)

    def outlined(stack: FocalStack, evidence: Any, completion: Any) -> Tensor:
        return with_outlines(stack, evidence, completion, scale, psf).coordinate

    compare("outlines [px of blur]", outlined, stack, evidence, completion, **in_pixels)
    surface = with_outlines(stack, evidence, completion, scale, psf)

    def residual(stack: FocalStack, evidence: Any, coordinate: Tensor) -> Tensor:
        return rerender_residual(stack, evidence, coordinate, scale, psf)

    checked = (stack, evidence, surface.coordinate)
    compare("check: re-rendering [sRGB]", residual, *checked, tolerance=_LIGHT, share=_FEW)
    inputs = (evidence, surface.coordinate, surface.agreement, residual(*checked))
    compare("check: confidence", confidence, *inputs, tolerance=_CONFIDENCE, share=_FEW)

    def weights(stack: FocalStack, sharpest: Tensor) -> Tensor:
        return spare_highlights(stack, frame_weights(sharpest, stack.focus_coordinates))

    compare("fuse: weights", weights, stack, evidence.sharpest, tolerance=_LIGHT, share=_FEW)


def _networks(compare: _Comparison, here: _Place, stack: FocalStack) -> None:
    """A transformer with its autoencoder at tiny width, and the network that ships."""
    from focaldiffusion.checkpoints.checkpoint import find_checkpoint
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline

    estimate = estimate_depth(here.of(stack), PSF())
    tiny = FocalDiffusionPipeline.from_preset("tiny", "noise")
    compact = find_checkpoint("compact").load()
    for name, pipeline in (("tiny transformer", tiny), ("compact", compact)):
        pipeline.set_progress_bar_config(disable=True)
        proposal, _ = pipeline.propose(here.of(stack), estimate)

        def planes(proposal: Any, place: _Place, pipeline: Any = pipeline) -> Tensor:
            moved = pipeline.to(place.device, place.dtype)
            return torch.cat(moved.predict(proposal, generator=torch.Generator().manual_seed(0)), 1)

        with torch.no_grad():
            spread = float(planes(here.of(proposal), here).std())

        def forward(proposal: Any, planes: Any = planes) -> Tensor:
            device, dtype = proposal.depth_code.device, proposal.depth_code.dtype
            return planes(proposal, _Place(device, dtype))

        compare(
            f"network: {name} [std of its output]",
            forward,
            proposal,
            tolerance=_NETWORK,
            share=_FEW,
            scale=1 / spread,
        )


def _focus_m(scene: Scene) -> list[float]:
    """Focus distances in even steps of inverse depth over the scene's range."""
    assert scene.focal_range_m is not None
    near_m, far_m = scene.focal_range_m
    return (1 / torch.linspace(1 / far_m, 1 / near_m, _FRAMES)).tolist()


def _photographed(scene: Scene) -> FocalStack:
    """An 8-bit stack of a scene with a little noise, the same on every device."""
    generator = torch.Generator().manual_seed(_SEED)
    return capture(scene, _focus_m(scene), noise_std_lsb=0.5, generator=generator)


def infer(probe: Probe) -> None:
    """Seconds per stage, with alignment and all files, from frames in memory."""
    sizes = {"1 MP": (864, 1152), "12 MP": (3000, 4000)}
    if probe.tiny:
        sizes = {"tiny": (48, 64)}
    opened: dict[str, tuple[list[NDArray[np.uint8]], dict[str, Any]]] = {}
    devices = dict.fromkeys((probe.device, "cpu"))
    cases = [(device, label, PHYSICS) for device in devices for label in sizes]
    cases += [(device, next(iter(sizes)), "compact") for device in devices]
    for device, label, model in cases:
        with probe.guarded(f"{label}, {device}, {model}"):
            if label not in opened:
                opened[label] = _pictures(sizes[label], probe.device)
            _infer_row(probe, label, *opened[label], device=device, model=model)


def _pictures(size: tuple[int, int], device: str) -> tuple[list[NDArray[np.uint8]], dict[str, Any]]:
    """Frames of a procedural scene as pictures, and the arguments of `reconstruct` about them."""
    scene = make_scene(_SEED, size, device=device)
    stack = _photographed(scene)
    pictures = [
        (linear_to_srgb(image.clamp(0, 1)) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        for image in stack.images
    ]
    lens = LensFacts(
        focal_length_px=scene.camera.focal_length_px,
        aperture_diameter_m=scene.aperture_diameter_m,
    )
    return pictures, {"focus_distances_m": _focus_m(scene), "lens": lens}


def _infer_row(
    probe: Probe,
    label: str,
    pictures: list[NDArray[np.uint8]],
    told: dict[str, Any],
    *,
    device: str,
    model: str,
) -> None:
    """Median seconds of each stage: on the GPU of up to three runs after a first, if they fit."""

    def wait(_stage: str, done: int, total: int) -> None:
        if done == total:  # a stage ends when the device has finished it
            probe.synchronize()

    def run() -> dict[str, float]:
        result = reconstruct(
            pictures, **told, model=model, settings=Settings(device=device), progress=wait
        )
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            result.save(Path(folder) / "result")
        seconds: dict[str, float] = result.provenance["seconds"]
        return {**seconds, "writing": time.perf_counter() - started}

    runs: list[dict[str, float]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe.start_peak()
        started = time.monotonic()
        runs.append(run())
        took_s = time.monotonic() - started
        more = min(3, int(probe.limit_s / 12 / took_s))
        if device != "cpu" and more:
            runs = [run() for _ in range(more)]  # the first has loaded its kernels
    stages = {stage: float(np.median([one[stage] for one in runs])) for stage in runs[0]}
    total = float(np.median([sum(one.values()) for one in runs]))
    peak = {"peak GiB": probe.peak_gib()} if device == probe.device else {}
    probe.row(f"{label}, {device}, {model}", runs=len(runs), total=total, **stages, **peak)


def simulator(probe: Probe) -> None:
    """Our renderer, and one FFT convolution for each layer and frame, as in simulator.py."""
    from simulator import BLUR_PX, FRAMES, LAYERS, SIDE_PX, Case, convolve_layers, rms_srgb

    side_px = 64 if probe.tiny else SIDE_PX
    scene = make_scene(_SEED, (side_px, side_px), device=probe.device)
    inverse_depth = filled_inverse_depth(scene)
    far, near = (float(end) for end in inverse_depth.aminmax())
    focus = torch.linspace(near, far, FRAMES, device=probe.device)
    blur_scale = BLUR_PX * side_px / SIDE_PX / (near - far)
    case = Case("procedural", scene.all_in_focus, inverse_depth, focus, blur_scale)
    arguments = case.arguments(probe.device)
    truth = render(*arguments, max_layers=256)
    rates: list[float] = []
    layers = len(layer_planes(inverse_depth, focus, blur_scale, LAYERS))
    for name, work in (
        ("FFT convolutions", partial(convolve_layers, case)),
        ("ours", partial(render, *arguments, max_layers=LAYERS)),
    ):
        with probe.guarded(name):
            probe.start_peak()
            timing = probe.median(work)
            rates.append(1 / timing.seconds)
            probe.row(
                f"{name}, {side_px} px, {layers} layers, {FRAMES} frames",
                stacks_per_s=rates[-1],
                layers_of_frames_per_s=rates[-1] * layers * FRAMES,
                error_srgb=rms_srgb(work(), truth),
                times_faster=rates[-1] / rates[0],
                peak_GiB=probe.peak_gib(),
                runs=timing.runs,
            )
