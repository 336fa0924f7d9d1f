"""Files to take away: each opens elsewhere, and holds what the page shows."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import trimesh
from command_line import contents
from PIL import Image
from plant import FRAMES, SIZE, run, write_stack

from focaldiffusion.app import exports, films
from focaldiffusion.app.views import Place, view_of
from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import read_values
from focaldiffusion.io.png import read_png

STROKES = [
    {"tool": "source", "frame": 2, "size_px": 14, "softness": 0.5, "points": [[10, 10], [40, 30]]},
    {"tool": "depth", "depth": 0.625, "size_px": 9, "points": [[60, 20]]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stack, its results, and strokes on them."""
    folder = tmp_path_factory.mktemp("exports")
    stack = write_stack(folder / "plant")
    profile = (Path(__file__).parent / "fixtures").glob("*.icc")
    exif = Image.Exif()
    exif[0x013B] = "Ada"
    for name in FRAMES:
        with Image.open(stack / name) as image:
            image.save(stack / name, exif=exif, icc_profile=_profile(profile))
    results = folder / "result"
    assert run("infer", stack, "--output", results, "--threads", "1", "--quiet") == 0
    view_of(place_in(folder)).retouch(STROKES, 0)
    return folder


def _profile(found: Iterator[Path]) -> bytes:
    from PIL import ImageCms

    profile = next(found, None)
    if profile is not None:
        return profile.read_bytes()
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def place_in(folder: Path) -> Place:
    return Place(str(folder / "result"), str(folder / "look"), str(folder / "retouch.json"))


@pytest.fixture
def place(folder: Path) -> Iterator[Place]:
    yield place_in(folder)
    for file in folder.glob("export-*/*"):
        file.unlink()
        file.parent.rmdir()


def export(place: Place, name: str) -> Path:
    path = Path(exports.exported(place, name))
    assert [path] == list(path.parent.iterdir())
    assert path.name == f"plant_{name}"
    return path


def test_images_have_the_retouching_and_the_facts_of_the_frame(place: Place) -> None:
    wanted = view_of(place).layer("image").native
    png, tif = export(place, "image.png"), export(place, "image.tif")
    assert (read_png(png) == wanted).all()
    with Image.open(png) as image:
        profile, exif = image.info["icc_profile"], image.getexif()
    assert exif[0x013B] == "Ada"
    with tifffile.TiffFile(tif) as file:
        (page,) = file.pages
        assert (page.asarray() == wanted.astype(np.uint16) * 257).all()
        assert page.tags["Artist"].value == "Ada"
        assert page.tags["InterColorProfile"].value == profile


@pytest.mark.parametrize("name", ["depth.npy", "depth.exr", "depth.png"])
def test_depth_is_that_of_the_page(place: Place, name: str) -> None:
    pytest.importorskip("OpenEXR") if name.endswith("exr") else None
    wanted = view_of(place).layer("depth").native
    values = read_values(export(place, name)).numpy()
    if name == "depth.png":
        values = values / 1000
    np.testing.assert_allclose(values, wanted, atol=0.5e-3 if name == "depth.png" else 0)
    assert wanted[20, 60] == 0.625


def test_points_and_surface_lie_in_space(place: Place) -> None:
    depth = view_of(place).layer("depth").native
    cloud = trimesh.load(export(place, "points.ply"))
    assert len(cloud.vertices) == depth.size
    surface = trimesh.load(export(place, "surface.glb"), force="mesh")
    # y up, and the camera looks along negative z.
    # The median of 5 by 5 pixels takes the outermost values off.
    assert -surface.vertices[:, 2].min() == pytest.approx(float(depth.max()), rel=0.01)
    assert (surface.face_normals[:, 2] > 0).mean() > 0.99
    points = exports.mesh(place, 1000, 0.0, True)
    assert len(points) < len(exports.mesh(place, 10**6, 0.0, True))
    with pytest.raises(InputError, match="no point is left at this confidence"):
        exports.mesh(place, 1000, 1.01, True)


def test_the_session_is_what_infer_writes_with_the_strokes(
    place: Place, folder: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    flags = ("--output", again, "--threads", "1", "--quiet")
    strokes = export(place, "retouch.json")
    assert run("infer", folder / "plant", "--retouch", strokes, *flags) == 0
    with zipfile.ZipFile(export(place, "session.zip")) as archive:
        archive.extractall(tmp_path)
    found, wanted = contents(tmp_path / "plant"), contents(again)
    differing = {name for name in wanted if found.get(name) != wanted[name]}
    assert differing == {"metadata.json", "overview.png"}
    assert json.loads(strokes.read_text())["strokes"][1]["depth"] == 0.625


def test_a_living_picture_is_one_page(place: Place) -> None:
    text = export(place, "living.html").read_text("utf-8")
    assert text.count("data:image/jpeg;base64,") == 11


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_films_have_their_frames(place: Place, kind: str) -> None:
    av = pytest.importorskip("av")
    made = {
        "focus_pull": films.pull(place, {"from": 0.42, "to": 1.4, "frames": 4, "format": kind}),
        "parallax": films.parallax(place, {"frames": 5, "format": kind}),
    }
    for name, count in (("focus_pull", 4), ("parallax", 5)):
        assert Path(made[name]).name == f"plant_{name}.{kind}"
        with av.open(made[name]) as film:
            frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
            codec = film.streams.video[0].codec_context.name
        assert len(frames) == count
        assert frames[0].shape == (*SIZE, 3)
        assert codec == {"mp4": "h264", "gif": "gif"}[kind]
        assert (frames[0] != frames[2]).any()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"format": "avi"}, "format 'avi': expected mp4 or gif"),
        ({"frames": 1}, "frames: 1; expected 2 to 240"),
        ({"frames": 1e9}, "expected 2 to 240"),
        ({"to": 1}, "from: None; expected a number"),
    ],
)
def test_films_that_make_no_sense_are_refused(
    place: Place, folder: Path, wanted: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        films.pull(place, wanted)
    assert list(folder.glob("export-*")) == []


@pytest.mark.parametrize("stack", ["x" * 250, "ä/" * 120, "scene"])
def test_names_fit_the_file_system(stack: str) -> None:
    name = exports.download_name(stack, "surface.glb")
    assert len(name.encode()) <= 255
    assert name.endswith("_surface.glb")
    assert "/" not in name


def test_formats_that_do_not_exist_are_refused(place: Place, folder: Path) -> None:
    with pytest.raises(InputError, match=r"format 'depth.tif': expected one of image.png"):
        exports.exported(place, "depth.tif")
    assert list(folder.glob("export-*")) == []
