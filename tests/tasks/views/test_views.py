"""The multi-view data: what is rendered is what the cameras see, and every folder is accounted for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.params import load_params
from stiv_model.diffusion.cameras import CAMERAS, Camera
from stiv_model.latents.folder import TABLE
from stiv_model.latents.shard_files import Shard
from tasks.sandbox.pool import Sandbox
from tasks.storage import stage, tables
from tasks.views import corpus, evaluate, folders, render
from tasks.views.corpus import HELD_OUT, TRAINING, ViewsCorpus
from tasks.views.encode import ViewsLatents
from tasks.views.folders import PICTURES
from tasks.views.scene import Scene, scenes

ROOT = Path(__file__).parents[3]
PARAMS = load_params(ROOT / "tests/params.yaml")
SETTINGS = PARAMS.views
CUBE = Scene("cube", "faces", ("red", "green", "blue"), 0.0, 1.0)


def test_the_cameras_are_those_of_the_paper():
    assert [camera.elevation for camera in CAMERAS] == [30, -20, 30, -20, 30, -20]
    assert [camera.azimuth for camera in CAMERAS] == [30, 90, 150, 210, 270, 330]


@pytest.mark.parametrize("camera", [Camera(0, 0), Camera(0, 90), *CAMERAS])
def test_a_point_is_seen_where_the_matrix_of_a_pinhole_puts_it(camera):
    points = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / np.sqrt(3)
    up, around = np.radians(camera.elevation), np.radians(camera.azimuth)
    turned = np.array([[np.cos(around), np.sin(around), 0], [-np.sin(around), np.cos(around), 0], [0, 0, 1]])
    tilted = np.array([[np.cos(up), 0, np.sin(up)], [0, 1, 0], [-np.sin(up), 0, np.cos(up)]])
    towards, right, upwards = tilted @ turned @ points.T  # as the camera on the axis x sees them
    focal = 32 / np.tan(np.radians(render.FIELD_OF_VIEW) / 2)
    depth = render.DISTANCE - towards
    expected = np.stack([32 + focal * right / depth, 32 - focal * upwards / depth], axis=1)
    np.testing.assert_allclose(render.project(points, camera, 64), expected, atol=1e-9)


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_rays_of_a_picture_go_where_its_points_are_seen(camera):
    start, directions = render.rays(camera, 8, 1)
    seen = render.project(start + 3 * directions, camera, 8)
    x, y = np.meshgrid(np.arange(8) + 0.5, np.arange(8) + 0.5)
    np.testing.assert_allclose(seen, np.stack([x.ravel(), y.ravel()], axis=1), atol=1e-9)


def test_the_outline_of_a_cube_is_that_of_its_corners():
    settings = SETTINGS.model_copy(update={"pixels": 64, "samples": 1})
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / np.sqrt(3)
    for camera in CAMERAS:
        is_object = (render.render(CUBE, camera, settings) != settings.background).any(axis=2)
        rows, columns = np.nonzero(is_object)
        low, high = render.project(corners, camera, 64).min(axis=0), render.project(corners, camera, 64).max(axis=0)
        # corners are seen to a pixel: at a corner's tip no pixel's middle may lie within
        assert np.abs([columns.min() - low[0], columns.max() + 1 - high[0]]).max() < 1.5
        assert np.abs([rows.min() - low[1], rows.max() + 1 - high[1]]).max() < 1.5


@pytest.mark.parametrize("solid", ["cube", "pyramid", "sphere", "cylinder", "cone"])
def test_what_a_ray_meets_lies_on_the_solid_and_faces_the_camera(solid):
    start, directions = render.rays(Camera(25, 40), 24, 1)
    found = render.hits(solid, start, directions)
    is_met = np.isfinite(found.distance)
    assert 0.1 < is_met.mean() < 0.7
    points, normals = start + found.distance[is_met, None] * directions[is_met], found.normal[is_met]
    assert (np.linalg.norm(points, axis=1) < 1 + 1e-9).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    assert ((normals * directions[is_met]).sum(axis=1) < 1e-9).all()
    behind = render.hits(solid, points[0] + 10 * normals[0], -normals[:1])  # from outside, straight at the same point
    assert behind.distance[0] == pytest.approx(10)


def test_held_out_objects_are_of_kinds_that_the_training_has_none_of():
    training, held_out = scenes(load_params(ROOT / "params.yaml").views)
    assert not {scene[:3] for scene in training} & {scene[:3] for scene in held_out}
    assert len({scene[:3] for scene in held_out}) == len(held_out)
    few = SETTINGS.model_copy(update={"held_out": 10_000})
    with pytest.raises(ValueError, match=r"views\.held_out is 10000, but there are \d+ kinds"):
        scenes(few)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("views") / "raw"
    stage.run(ViewsCorpus(SETTINGS), out, out.with_suffix(".json"), "code", earlier=out.parent / "earlier")
    return out


def test_two_renders_are_the_same_bytes(made, tmp_path):
    training, held_out = scenes(SETTINGS)
    assert len(list((made / TRAINING).iterdir())) == len(training) == SETTINGS.objects
    assert len(list((made / HELD_OUT).iterdir())) == len(held_out) == SETTINGS.held_out
    corpus.write_object(training[0], tmp_path / "again", SETTINGS)
    for name in (*PICTURES, folders.CAMERA_FILE):
        assert (tmp_path / "again" / name).read_bytes() == (made / TRAINING / "00000" / name).read_bytes()


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _other_picture(size: tuple[int, int]) -> Callable[[Path], None]:
    return lambda folder: Image.new("RGB", size).save(folder / PICTURES[3])


def _turned(folder: Path) -> None:
    held = json.loads((folder / folders.CAMERA_FILE).read_text())
    held["views"][2]["azimuth"] += 20
    (folder / folders.CAMERA_FILE).write_text(json.dumps(held))


BROKEN: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "a": ("rejected", "missing_view", _without(PICTURES[6])),
    "b": ("rejected", "no_cameras", _without(folders.CAMERA_FILE)),
    "c": ("failed", "bad_cameras", lambda folder: (folder / folders.CAMERA_FILE).write_text('{"views": [1]}')),
    "d": ("rejected", "other_cameras", _turned),
    "e": ("rejected", "unlike_sizes", _other_picture((40, 32))),
    "f": ("rejected", "not_a_picture", lambda folder: (folder / PICTURES[0]).write_text("no picture")),
}


def test_every_folder_has_a_row_and_what_is_ok_is_the_given_view_twice_and_six_more(made, tmp_path):
    objects = tmp_path / "objects"
    training, _ = scenes(SETTINGS)
    for name, (_, _, spoil) in BROKEN.items():
        corpus.write_object(training[0], objects / name, SETTINGS)
        spoil(objects / name)
    for name, scene in (("ok-1", training[0]), ("ok-2", training[1])):
        corpus.write_object(scene, objects / name, SETTINGS)
    shown = Image.open(objects / "ok-1" / PICTURES[0]).convert("RGBA")
    clear = np.array(shown)
    clear[(clear[..., :3] == SETTINGS.background).all(axis=2)] = 0  # the background is transparent, and so white
    Image.fromarray(clear).save(objects / "ok-1" / PICTURES[0])

    settings = SETTINGS.model_copy(update={"max_failed_fraction": 0.5})
    of = ViewsLatents(objects, settings, PARAMS.latents, PARAMS.vae, PARAMS.text, PARAMS.sandbox)
    out = tmp_path / "latents"
    (account,) = stage.run(of, out, tmp_path / "report.json", "code", earlier=tmp_path / "earlier")
    assert (account.given, account.ok, account.rejected, account.failed) == (8, 2, 5, 1)
    rows = {row["clip"]: row for row in tables.read_rows(out / TABLE, tables.LATENTS)}
    assert {name: (rows[name]["status"], rows[name]["reason"]) for name in BROKEN} == {
        name: (status, reason) for name, (status, reason, _) in BROKEN.items()
    }
    latents = [Shard(out / rows[name]["shard"]).clip(rows[name]["row"])["latents"] for name in ("ok-1", "ok-2")]
    for of_object in latents:
        assert of_object.shape[0] == 8
        assert (of_object[0] == of_object[1]).all()
        assert (of_object[1] != of_object[2]).any()
    assert (latents[0] != latents[1]).any()


def test_the_nearest_object_is_the_usable_one_whose_given_view_is_alike(made, tmp_path):
    training = tmp_path / "training"
    shutil.copytree(made / TRAINING, training)
    height, width = PARAMS.latents.height, PARAMS.latents.width
    with Sandbox(PARAMS.sandbox) as sandbox:
        all_of_them = evaluate.read(training, sandbox, height, width).pictures
        given = all_of_them[[3, 1], 0]
        assert (evaluate.nearest(given, training, sandbox) == all_of_them[[3, 1], 1:]).all()
        (training / "00003" / PICTURES[5]).unlink()  # what is left of it is no object any more
        others = evaluate.nearest(given, training, sandbox)
        assert (others[1] == all_of_them[1, 1:]).all()
        assert any((others[0] == all_of_them[number, 1:]).all() for number in (0, 1, 2, 4, 5))
        for name in training.iterdir():
            (name / PICTURES[5]).unlink(missing_ok=True)
        with pytest.raises(ValueError, match="none of the objects"):
            evaluate.nearest(given, training, sandbox)


def test_what_lies_behind_an_object_is_as_grey_as_is_asked(made):
    picture = np.asarray(Image.open(made / TRAINING / "00000" / PICTURES[0]))
    assert (picture[0, 0] == SETTINGS.background).all()
    darker = SETTINGS.model_copy(update={"background": 40})
    assert (render.render(CUBE, CAMERAS[0], darker)[-1, -1] == 40).all()
