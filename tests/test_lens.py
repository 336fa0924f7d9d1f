from __future__ import annotations

import math

import pytest

from focaldiffusion.errors import InputError
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera

SIZE = (100, 150)


def test_a_camera_from_focal_length_f_number_and_pitch():
    lens = LensFacts(focal_length_m=0.05, f_number=2.0, pixel_pitch_m=10e-6)
    assert lens.camera(SIZE) == Camera(5000.0, 0.025, SIZE, (75.0, 50.0))
    # Focused at 0.3 m the image distance is 0.05 * 0.3 / 0.25 = 60 mm.
    near = lens.camera(SIZE, 0.3)
    assert near.focal_length_px == pytest.approx(6000)
    assert near.aperture_diameter_m == 0.025
    assert not lens.missing()


def test_the_sensor_width_is_the_long_side():
    lens = LensFacts(focal_length_m=0.05, sensor_width_m=0.036)
    for size in (SIZE, SIZE[::-1]):
        assert lens.camera(size).focal_length_px == pytest.approx(50 / (36 / 150))


@pytest.mark.parametrize("focus_m", [math.inf, 0.3])
def test_focal_length_in_pixels_and_pitch_make_the_focal_length(focus_m):
    """The same aperture by either way."""
    lens = LensFacts(focal_length_m=0.05, f_number=2.0, pixel_pitch_m=10e-6)
    focal_length_px = lens.camera(SIZE, focus_m).focal_length_px
    pixels = LensFacts(focal_length_px=focal_length_px, f_number=2.0, pixel_pitch_m=10e-6)
    assert pixels.camera(SIZE, focus_m).aperture_diameter_m == pytest.approx(0.025)
    assert not pixels.missing()


@pytest.mark.parametrize(
    ("lens", "camera", "missing"),
    [
        ({}, None, ["focal_length_m", "pixel_pitch_m", "f_number"]),
        ({"sensor_width_m": 0.036, "f_number": 2}, None, ["focal_length_m"]),
        ({"focal_length_px": 900}, Camera(900, None, SIZE), ["focal_length_m", "f_number"]),
        ({"focal_length_px": 900, "sensor_width_m": 0.036}, Camera(900, None, SIZE), ["f_number"]),
        ({"aperture_diameter_m": 0.01}, None, ["focal_length_m", "pixel_pitch_m"]),
        ({"focal_length_px": 900, "aperture_diameter_m": 0.01}, Camera(900, 0.01, SIZE), []),
    ],
)
def test_lenses_known_in_part(lens, camera, missing):
    facts = LensFacts(**lens)
    assert facts.camera(SIZE) == camera
    assert list(facts.missing()) == missing


@pytest.mark.parametrize(
    ("better", "worse", "merged"),
    [
        ("focal_length_m", "f_number", "focal_length_m f_number"),
        ("f_number", "aperture_diameter_m", "f_number"),
        ("aperture_diameter_m", "f_number", "aperture_diameter_m"),
        ("sensor_width_m", "pixel_pitch_m", "sensor_width_m"),
        ("focal_length_m", "focal_length_px", "focal_length_m"),
        # Of focal length, pitch and focal length in pixels two stay.
        ("focal_length_px", "sensor_width_m f_number", "focal_length_px sensor_width_m f_number"),
        ("focal_length_px", "focal_length_m pixel_pitch_m", "focal_length_px focal_length_m"),
        ("pixel_pitch_m", "focal_length_px", "pixel_pitch_m focal_length_px"),
        ("pixel_pitch_m", "focal_length_px focal_length_m", "pixel_pitch_m focal_length_m"),
        ("focal_length_px focal_length_m", "pixel_pitch_m", "focal_length_px focal_length_m"),
        ("focal_length_px sensor_width_m", "focal_length_m", "focal_length_px sensor_width_m"),
    ],
)
def test_a_better_source_replaces_other_forms(better, worse, merged):
    def facts(names, value):
        return LensFacts(**dict.fromkeys(names.split(), value))

    found = facts(better, 2e-4).over(facts(worse, 3e-4))
    assert set(found.values()) == set(merged.split())
    assert all(getattr(found, name) == 2e-4 for name in better.split())


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        ({"f_number": 0.0}, r"f_number is 0\.0; expected a positive number"),
        ({"pixel_pitch_m": math.nan}, "pixel_pitch_m is nan"),
        ({"focal_length_m": math.inf}, "focal_length_m is inf"),
        (
            {"focal_length_m": 50},
            "focal_length_m 50 looks like millimetres; in metres that is 0.05",
        ),
        ({"pixel_pitch_m": 1e-12}, "1e-12 metres is smaller than any"),
        (
            {"pixel_pitch_m": 2e-6, "sensor_width_m": 0.006},
            "pixel_pitch_m and sensor_width_m exclude each other; give one",
        ),
        (
            {"focal_length_m": 0.05, "pixel_pitch_m": 2e-6, "focal_length_px": 25000},
            "pixel_pitch_m, focal_length_px, focal_length_m: any two make the third; give two",
        ),
    ],
)
def test_impossible_lenses_are_refused(lens, message):
    with pytest.raises(InputError, match=message):
        LensFacts(**lens)


def test_a_focus_within_the_focal_length_is_refused():
    lens = LensFacts(focal_length_m=0.05, pixel_pitch_m=10e-6)
    with pytest.raises(InputError, match="a lens cannot focus there"):
        lens.camera(SIZE, 0.05)
