"""Lens and focus of a stack: stack.json, trust order, and what is known only in part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stack_folders import exif, folder_of, refusal

from focaldiffusion.io.facts import EXIF_UNCERTAINTY_DPT, Origin
from focaldiffusion.io.simulated import write_stack
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera, lens_distance_m
from focaldiffusion.stack import FocalStack


class TestSidecar:
    def test_a_link_to_nothing_is_named(self, tmp_path: Path) -> None:
        folder_of(tmp_path)
        (tmp_path / "stack.json").symlink_to(tmp_path / "moved.json")
        assert "stack.json: cannot be read (" in refusal(tmp_path)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('{"files": [}', "stack.json: not JSON: Expecting value at line 1, column 12."),
            ("[1]", "stack.json: holds a list; expected an object in braces."),
            (
                '{"camera": {"focal_length_px": 9, "focal_length_px": 8}}',
                "stack.json: cannot be read (key 'focal_length_px' appears twice; keep one).",
            ),
            (
                '{"focus_distance_m": [1]}',
                "stack.json: key 'focus_distance_m' is unknown; did you mean focus_distances_m?",
            ),
            (
                '{"camera": {"focal_lenght_m": 0.05}}',
                "stack.json: camera key 'focal_lenght_m' is unknown; did you mean focal_length_m?",
            ),
            (
                '{"camera": {"focal_length_px": 1' + 400 * "0" + "}}",
                "stack.json: camera holds a number that is too large.",
            ),
            ('{"camera": 50}', "stack.json: camera is 50; expected an object."),
            (
                '{"camera": {"focal_length_px": "9"}}',
                'stack.json: camera focal_length_px is "9"; expected a number.',
            ),
            (
                '{"camera": {"focal_length_px": 0, "aperture_diameter_m": 1}}',
                "stack.json: camera focal_length_px is 0.0; expected a positive number.",
            ),
            (
                '{"camera": {"focal_length_m": 50}}',
                "camera focal_length_m 50 looks like millimetres; in metres that is 0.05.",
            ),
            (
                '{"camera": {"focal_length_px": 900, "f_number": 2, "aperture_diameter_m": 1}}',
                "camera f_number and aperture_diameter_m exclude each other; give one.",
            ),
            (
                '{"camera": {"focal_length_px": 1e8, "aperture_diameter_m": 1}}',
                "focal_length_px is 1e+08; no camera has more than 1e+07",
            ),
            (
                '{"focus_distances_m": [1, "2 m", 3]}',
                'focus_distances_m[1] is "2 m"; expected a number of metres',
            ),
            ('{"focus_positions_m": [1, null, 3]}', "focus_positions_m[1] is null; expected"),
            (
                '{"focus_positions_m": [0, 1, 2], "focus_distances_m": [1, 2, 3]}',
                "focus_distances_m and focus_positions_m exclude each other",
            ),
            ('{"files": ["frame_0.png", "frame_9.png"]}', "files lists 'frame_9.png', which is ab"),
            ('{"files": ["frame_0.png", "frame_0.png"]}', "lists 'frame_0.png' more than once"),
            (
                '{"focus_distances_m": [1, 2]}',
                "stack.json: focus_distances_m: 2 values for 3 frames",
            ),
            ('{"focus_distances_m": [1, 0, 2]}', "are not all positive"),
            ('{"focus_distances_m": [1, NaN, 2]}', "stack.json: focus_distances_m: contains NaN"),
            ('{"focus_distances_m": [1, 1, 2]}', "1.0 appears more than once"),
            ('{"focus_distances_m": [300, 400, 500]}', "these look like millimetres"),
            (
                '{"focus_distances_m": [0.04, 1, 2], "camera": {"focal_length_m": 0.05, '
                '"f_number": 2, "pixel_pitch_m": 1e-5}}',
                "focus distance 0.04 m lies within the focal length 0.05 m",
            ),
        ],
    )
    def test_refusals(self, tmp_path: Path, text: str, expected: str) -> None:
        folder_of(tmp_path)
        (tmp_path / "stack.json").write_text(text)
        message = refusal(tmp_path)
        assert expected in message
        assert "\n" not in message

    def test_both_forms_of_a_camera_and_a_note(self, tmp_path: Path) -> None:
        lens = {"focal_length_m": 0.05, "f_number": 2.0, "pixel_pitch_m": 1e-5}
        sidecar = {"camera": lens, "focus_distances_m": [1, 2, None], "note": {"any": "thing"}}
        stack = open_stack(folder_of(tmp_path, sidecar=sidecar))
        for index, focus_m in enumerate((1.0, 2.0, math.inf)):
            expected = LensFacts(0.05, 2.0, 1e-5).camera((30, 40), focus_m)
            assert stack.camera_for(index) == expected
        pixels = {"focal_length_px": 5000.0, "aperture_diameter_m": 0.025}
        stack = open_stack(folder_of(tmp_path, sidecar={"camera": pixels}))
        assert stack.camera_for(1) == Camera(5000.0, 0.025, (30, 40))
        assert str(stack.origins["camera"]) == "stack.json"

    def test_a_camera_in_part(self, tmp_path: Path) -> None:
        folder_of(tmp_path, sidecar={"camera": {"focal_length_m": 0.05, "pixel_pitch_m": 1e-5}})
        stack = open_stack(tmp_path)
        assert stack.camera_for() == Camera(0.05 / 1e-5, None, (30, 40))
        assert str(stack.origins["camera"]).startswith("unknown: no f-number")
        stack = open_stack(tmp_path, lens=LensFacts(f_number=2.0))
        assert stack.camera_for() == Camera(0.05 / 1e-5, 0.025, (30, 40))
        assert stack.origins["camera"] == Origin("several", "stack.json, given")


class TestTrustOrder:
    sidecar: dict[str, Any] = {  # noqa: RUF012
        "focus_distances_m": [0.5, 1, 2],
        "camera": {"focal_length_m": 0.05, "f_number": 2.0, "pixel_pitch_m": 1e-5},
    }
    blocks = tuple(exif(d, 25.0, 4.0, 50) for d in (0.6, 1.2, 2.4))

    def test_given_over_sidecar_over_exif(self, tmp_path: Path) -> None:
        folder_of(tmp_path, self.blocks, self.sidecar)
        stack = open_stack(
            tmp_path, focus_distances_m=[0.7, 1.4, 2.8], lens=LensFacts(f_number=8.0)
        )
        assert stack.focus_distances_m == (0.7, 1.4, 2.8)
        assert stack.focus_uncertainty_dpt is None
        assert stack.lens.f_number == 8.0
        assert stack.lens.focal_length_m == 0.05
        assert str(stack.origins["f_number"]) == "given"
        assert str(stack.origins["focal_length_m"]) == "stack.json"
        stack = open_stack(tmp_path)
        assert stack.focus_distances_m == (0.5, 1.0, 2.0)
        (tmp_path / "stack.json").unlink()
        stack = open_stack(tmp_path)
        assert stack.focus_distances_m == pytest.approx((0.6, 1.2, 2.4))
        assert stack.focus_uncertainty_dpt == (EXIF_UNCERTAINTY_DPT,) * 3
        assert str(stack.origins["focus_distances_m"]) == "EXIF SubjectDistance"
        # f = 25 mm called 50 mm: the 50 px diagonal is 43.2666 / 2 mm of sensor.
        pitch_m = 43.2666e-3 / 2 / 50
        expected = LensFacts(0.025, 4.0, pitch_m).camera((30, 40), 0.6)
        camera = stack.camera_for(0)
        assert expected is not None
        assert camera is not None
        assert camera.focal_length_px == pytest.approx(expected.focal_length_px, rel=1e-6)
        assert camera.aperture_diameter_m == pytest.approx(0.00625)

    def test_given_positions_replace_the_distances_of_the_sidecar(self, tmp_path: Path) -> None:
        folder_of(tmp_path, sidecar=self.sidecar)
        stack = open_stack(tmp_path, focus_positions_m=[0, 1e-5, 2e-5])
        assert stack.focus_positions_m == (0, 1e-5, 2e-5)
        assert stack.focus_distances_m is None

    def test_stripping_exif_removes_only_what_exif_gave(self, tmp_path: Path) -> None:
        sidecar = {"focus_distances_m": [0.5, 1, 2]}
        with_exif = open_stack(folder_of(tmp_path / "with", self.blocks, sidecar))
        without = open_stack(folder_of(tmp_path / "without", sidecar=sidecar))
        for index in range(3):
            np.testing.assert_array_equal(with_exif.frames.read(index), without.frames.read(index))
        assert with_exif.focus_distances_m == without.focus_distances_m
        assert with_exif.camera_for() is not None
        assert without.camera_for() is None
        assert str(without.origins["camera"]) == (
            "unknown: no focal length, pixel pitch, f-number (frame_0.png: no EXIF of a camera)"
        )

    def test_calibrated_pixels_replace_the_pitch(self, tmp_path: Path) -> None:
        stack = open_stack(folder_of(tmp_path, self.blocks), lens=LensFacts(focal_length_px=900.0))
        assert stack.camera_for() == Camera(900.0, 0.025 / 4, (30, 40))
        assert stack.lens.pixel_pitch_m is None

    def test_camera_names_only_what_it_is_made_of(self, tmp_path: Path) -> None:
        pixels = {"focal_length_px": 900.0, "aperture_diameter_m": 0.01}
        stack = open_stack(folder_of(tmp_path, self.blocks, {"camera": pixels}))
        assert stack.camera_for() == Camera(900.0, 0.01, (30, 40))
        assert str(stack.origins["camera"]) == "stack.json"
        assert str(stack.origins["focus_distances_m"]) == "EXIF SubjectDistance"

    def test_sensor_width_is_the_long_side(self, tmp_path: Path) -> None:
        folder_of(tmp_path, [exif(None, 50.0, 2.0, orientation=6)] * 2)
        stack = open_stack(tmp_path, lens=LensFacts(sensor_width_m=0.036))
        assert stack.frames.size == (40, 30)
        camera = stack.camera_for()
        assert camera is not None
        assert camera.focal_length_px == pytest.approx(50 / (36 / 40))

    def test_given_distances_are_checked(self, tmp_path: Path) -> None:
        message = refusal(folder_of(tmp_path), focus_distances_m=[1.0, 2.0])
        assert message.startswith("given: focus_distances_m: 2 values for 3 frames")
        both = {"focus_distances_m": [1.0, 2.0, 3.0], "focus_positions_m": [1.0, 2.0, 3.0]}
        message = refusal(tmp_path, **both)
        assert message.startswith("given: focus_distances_m and focus_positions_m exclude each")


class TestPartialKnowledge:
    def test_focal_length_without_pitch(self, tmp_path: Path) -> None:
        stack = open_stack(folder_of(tmp_path, [exif(None, 6.81, 1.85)] * 2))
        assert stack.camera_for() is None
        assert str(stack.origins["camera"]) == (
            "unknown: no pixel pitch (frame_0.png: EXIF has neither FocalPlaneXResolution nor "
            "FocalLengthIn35mmFilm)"
        )
        assert str(stack.origins["focal_length_m"]) == "EXIF FocalLength"

    def test_focal_length_in_pixels_makes_a_camera_without_an_aperture(
        self, tmp_path: Path
    ) -> None:
        stack = open_stack(folder_of(tmp_path), lens=LensFacts(focal_length_px=800.0))
        assert stack.camera_for() == Camera(800.0, None, (30, 40))
        assert str(stack.origins["camera"]).startswith("unknown: no focal length, f-number")

    def test_aperture_that_changed_is_not_used(self, tmp_path: Path) -> None:
        blocks = [exif(None, 50.0, 2.8, 50), exif(None, 50.0, 4.0, 50)]
        stack = open_stack(folder_of(tmp_path, blocks))
        assert stack.lens.f_number is None
        assert stack.lens.focal_length_m == 0.05
        assert "EXIF FNumber differs between frames: frame_0.png gives 2.8, frame_1.png 4" in str(
            stack.origins["camera"]
        )


class TestRecordedFocus:
    def distances(self, folder: Path, values: Sequence[float | None], **lens: Any) -> Any:
        return open_stack(folder_of(folder, [exif(value, **lens) for value in values]))

    def test_one_frame_without(self, tmp_path: Path) -> None:
        stack = self.distances(tmp_path, [1.0, None, 2.0])
        assert stack.focus_distances_m is None
        assert str(stack.origins["focus_distances_m"]) == (
            "unknown: frame_1.png: the EXIF of this Maker has no focus distance"
        )

    def test_equal_distances_are_as_uncertain_as_the_next_is_far(self, tmp_path: Path) -> None:
        stack = self.distances(tmp_path, [0.5, 1.0, 1.0])
        assert stack.focus_distances_m == (0.5, 1.0, 1.0)
        assert stack.focus_uncertainty_dpt == (EXIF_UNCERTAINTY_DPT, 1.0, 1.0)

    def test_the_same_distance_everywhere_says_nothing(self, tmp_path: Path) -> None:
        stack = self.distances(tmp_path, [1.0, 1.0, 1.0])
        assert stack.focus_distances_m is None
        assert "is 1 m in every frame" in str(stack.origins["focus_distances_m"])

    def test_canon_counts_from_the_sensor(self, tmp_path: Path) -> None:
        stack = self.distances(tmp_path, [0.5, 1.0], make="Canon", focal_mm=50.0)
        assert stack.focus_distances_m == pytest.approx(
            [lens_distance_m(0.5, 0.05), lens_distance_m(1.0, 0.05)]
        )
        assert "converted to the lens" in str(stack.origins["focus_distances_m"])

    def test_canon_without_its_focal_length(self, tmp_path: Path) -> None:
        stack = self.distances(tmp_path, [0.5, 1.0], make="Canon")
        assert stack.focus_distances_m is None
        assert "needs the focal length, which is unknown" in str(stack.origins["focus_distances_m"])

    def test_impossible_record_is_left_out_not_fatal(self, tmp_path: Path) -> None:
        """Macro lenses shorten their focal length, so the recorded one does not fit."""
        stack = self.distances(tmp_path, [0.3, 0.31], make="Canon", focal_mm=100.0)
        assert stack.focus_distances_m is None
        assert "nearer than four focal lengths" in str(stack.origins["focus_distances_m"])


@pytest.mark.parametrize("aperture_m", [0.01, None])
def test_a_written_stack_keeps_its_camera(tmp_path: Path, aperture_m: float | None) -> None:
    camera = Camera(900.0, aperture_m, (30, 40))
    images = torch.rand(2, 3, 30, 40, generator=torch.Generator().manual_seed(0))
    stack = FocalStack(images, camera, torch.tensor([1.0, math.inf]))
    write_stack(tmp_path / "stack", stack, bit_depth=8, note={})
    opened = open_stack(tmp_path / "stack")
    assert opened.camera_for() == camera
    assert opened.focus_distances_m == (1.0, math.inf)
    assert opened.origins["camera"].is_known == (aperture_m is not None)
