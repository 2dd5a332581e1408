"""Shots over pictures: the window goes where the words say, objects too, and guides can be read off what was shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.errors import InputError
from tests.models import WORDED, random_state
from xclip_core import XClip
from xclip_core.guides import THUMBNAIL_SIDE, Guides, thumbnails
from xclip_core.pictures import Library, cut_out, pictures_of, read_library, window
from xclip_core.pretrain import new_model
from xclip_core.reel import shoot
from xclip_core.rehearsal import Pool, Rehearsal, rehearse, render_pool, turned
from xclip_core.scenes import DIRECTIONS, HEADING, VALUES
from xclip_core.shots import CAMERAS, PANS, Shot, camera_path, random_shot, shot_claims
from xclip_core.takes import CAMERA_NUMBERS, OBJECT_NUMBERS
from xclip_core.validate_shots import validate_shots
from xclip_core.vocabulary import vocabulary_of
from xclip_core.weights import module_name

T, S = 8, 48


@pytest.fixture(scope="module")
def library() -> Library:
    return read_library(None, held_out=False)


def dot_library() -> Library:
    """One grey background with a bright dot in the middle, and a red square as the object."""
    y, x = np.mgrid[:288, :512]
    dot = 60 + 180 * np.exp(-((y - 144) ** 2 + (x - 256) ** 2) / 300)
    levels = [torch.from_numpy(np.stack([dot] * 3).astype(np.float32))]
    square = torch.zeros(4, 20, 20)
    square[0], square[3] = 255, 1
    return Library((tuple(levels),), (square,))


def dot_path(frames_TCHW):
    """T x 2: the brightest place (x, y) of each frame, in sides from the centre."""
    grey = frames_TCHW.astype(float).sum(axis=1)
    weight = np.clip(grey - np.percentile(grey, 90), 0, None)
    y, x = (np.mgrid[:S, :S] + 0.5) / S - 0.5
    total = weight.sum(axis=(1, 2))
    return np.stack([(weight * x).sum(axis=(1, 2)) / total, (weight * y).sum(axis=(1, 2)) / total], axis=1)


@pytest.mark.parametrize("camera", tuple(PANS))
@pytest.mark.parametrize("speed", ["slow", "fast"])
def test_picture_moves_against_the_camera(camera, speed):
    times = np.linspace(0, 1, 5)
    path = camera_path(Shot(camera=camera, speed=speed), times, np.random.default_rng(3))
    step = np.array([path.x_T[-1] - path.x_T[0], path.y_T[-1] - path.y_T[0]])
    x_T, y_T = (torch.tensor(v * 100 + c, dtype=torch.float32) for v, c in ((path.x_T, 256), (path.y_T, 144)))
    seen = window(dot_library().backgrounds[0], x_T, y_T, torch.full((5,), 100.0), S)
    dots = dot_path(seen.numpy())
    middle = slice(1, 4) if speed == "fast" else slice(None)  # a fast pan may carry the dot out of sight
    moved = dots[middle][-1] - dots[middle][0]
    assert np.dot(moved, PANS[camera]) < -0.05
    assert np.dot(step, PANS[camera]) > 0.2


def test_zooming_in_shows_less_and_out_shows_more():
    for camera, sign in (("zoom in", -1), ("zoom out", 1)):
        path = camera_path(Shot(camera=camera), np.linspace(0, 1, T), np.random.default_rng(0))
        assert sign * (path.log_side_T[-1] - path.log_side_T[0]) > np.log(1.3)


def test_static_cameras_stay_and_shaky_ones_do_not():
    ends = {}
    for camera in ("static", "shake"):
        paths = [camera_path(Shot(camera=camera), np.linspace(0, 1, T), np.random.default_rng(k)) for k in range(30)]
        ends[camera] = [np.abs(np.diff(path.x_T)).mean() for path in paths]
    assert max(ends["static"]) < min(ends["shake"])


def test_window_of_whole_pixels_is_the_picture_itself():
    picture = torch.rand(3, 40, 60) * 255
    seen = window((picture,), torch.tensor([26.0]), torch.tensor([21.0]), torch.tensor([16.0]), 16)
    assert torch.allclose(seen[0], picture[:, 13:29, 18:34], atol=1e-3)


@pytest.mark.parametrize("motion", DIRECTIONS)
def test_object_moves_as_the_shot_says(motion):
    take = shoot(Shot(motion=motion, speed="slow", seed=4), dot_library(), T, S, np.random.default_rng(1))
    frames = take.frames_TCHW.astype(int)
    red = (frames[:, 0] - frames[:, 1]) > 80
    places = [np.argwhere(mask).mean(axis=0)[::-1] for mask in red if mask.any()]
    moved = places[-1] - places[0]
    assert moved / np.linalg.norm(moved) == pytest.approx(HEADING[motion], abs=0.2)
    assert take.claims["motion"] == motion


def test_objects_are_clear_beyond_their_edges():
    square = torch.ones(4, 10, 10)
    seen = cut_out(square, torch.zeros(1), torch.zeros(1), torch.tensor([0.5]), 32)
    assert seen[0, 3, 16, 16] == 1
    assert seen[0, 3, :7].max() == 0
    assert seen[0, 3].mean() == pytest.approx(0.25, abs=0.03)


def test_growing_objects_grow(library):
    dots = dot_library()
    areas = {}
    for motion in ("growing", "shrinking"):
        take = shoot(Shot(motion=motion, seed=9), dots, T, S, np.random.default_rng(1))
        frames = take.frames_TCHW.astype(int)
        areas[motion] = ((frames[:, 0] - frames[:, 1]) > 80).sum(axis=(1, 2))
    assert areas["growing"][-1] > 1.5 * areas["growing"][0]
    assert areas["shrinking"][0] > 1.5 * areas["shrinking"][-1]


def test_cut_changes_the_picture_once(library):
    take = shoot(Shot(cut=True, seed=6), library, T, S, np.random.default_rng(0))
    change = np.abs(np.diff(take.frames_TCHW.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert (change > 4 * np.median(change)).sum() == 1
    assert take.claims["cut"] == "cut"


def test_claims_of_random_shots_are_known_values():
    rng = np.random.default_rng(0)
    for _ in range(200):
        shot = random_shot(rng, with_object=0.5)
        assert shot.motion is None or shot.camera == "static"
        assert all(value in VALUES[name] for name, value in shot_claims(shot).items())


def test_same_shot_gives_the_same_take(library):
    shot = Shot(camera="pan left", seed=11)
    one, two = (shoot(shot, library, T, S, np.random.default_rng(5)) for _ in range(2))
    assert (one.frames_TCHW == two.frames_TCHW).all()
    assert one.claims == two.claims
    assert len(one.numbers) == OBJECT_NUMBERS + CAMERA_NUMBERS


# Pictures from a folder.


def test_families_are_trained_on_or_held_out_never_both(tmp_path):
    for family in range(24):
        for shade in range(2):
            Image.effect_noise((500, 420), 90).convert("RGB").save(tmp_path / f"wall{family}__{shade}.png")
    sides = {held: read_library(tmp_path, held_out=held) for held in (False, True)}
    textures = {held: read_library(None, held_out=held) for held in (False, True)}
    counts = {held: len(sides[held].backgrounds) - len(textures[held].backgrounds) for held in sides}
    assert sum(counts.values()) == 48
    assert counts[False] % 2 == counts[True] % 2 == 0
    assert counts[True] > 0


def test_pictures_with_transparency_are_objects(tmp_path):
    Image.new("RGBA", (200, 100), (255, 0, 0, 128)).save(tmp_path / "object.png")
    Image.effect_noise((500, 420), 90).convert("RGBA").save(tmp_path / "opaque.png")
    found = pictures_of(tmp_path)
    assert len(found.backgrounds) == 2
    both = [read_library(tmp_path, held_out=held) for held in (False, True) if _holds(tmp_path, held_out=held)]
    assert {tuple(o.shape) for library in both for o in library.objects} <= {(4, 48, 96)}


def _holds(folder, *, held_out):
    try:
        return read_library(folder, held_out=held_out)
    except InputError:
        return None


def test_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no"):
        read_library(tmp_path, held_out=False)


# Guides.


def test_thumbnail_reads_back_from_the_vector_it_was_put_in():
    guides, frames = Guides(96, seed=0), torch.randint(0, 256, (2, 3, 32, 32, 3), dtype=torch.uint8)
    vectors = guides.as_frames(thumbnails(frames))
    assert torch.allclose(vectors @ guides.subspace_EP, thumbnails(frames), atol=1e-5)
    torch.nn.init.zeros_(guides.colours.weight)
    plain = guides.picture_loss(vectors, frames)
    assert guides.picture_loss(torch.zeros_like(vectors), frames) > plain + 0.5


def test_unknown_numbers_do_not_count():
    guides, vectors = Guides(64, seed=0), torch.randn(4, 64)
    numbers = torch.zeros(4, OBJECT_NUMBERS + CAMERA_NUMBERS)
    known = guides.number_loss(vectors, numbers)
    half = numbers.clone()
    half[:, 0] = float("nan")
    expected = guides.numbers(vectors)[:, 1:].square().mean()
    assert guides.number_loss(vectors, half).item() == pytest.approx(expected.item(), rel=1e-5)
    assert known.item() == pytest.approx(guides.numbers(vectors).square().mean().item(), rel=1e-5)
    assert guides.number_loss(vectors, torch.full_like(numbers, float("nan"))) == 0


# The rehearsal.


def test_turning_a_clip_turns_its_name_and_numbers(library):
    pool = render_pool(library, 60, 4, np.random.default_rng(0))
    swapped = {"pan left": "pan right", "tilt up": "tilt down", "zoom in": "zoom out"}
    both = swapped | {b: a for a, b in swapped.items()}
    seen = set()
    for seed in range(8):
        new = turned(pool, np.random.default_rng(seed))
        for before, after in zip(pool.camera_B.tolist(), new.camera_B.tolist(), strict=True):
            assert CAMERAS[after] in (CAMERAS[before], both.get(CAMERAS[before]))
            seen.add((before, after))
        for camera, column in (("pan left", 0), ("tilt up", 1), ("zoom in", 2)):
            rows = new.camera_B == CAMERAS.index(camera)
            assert (new.numbers_BG[rows, column] < 0).all()
    assert len(seen) == 8 + 6


def test_rehearsal_learns_camera_motions_from_thumbnails(library):
    mit = new_model(vocabulary_of(["a"]), seed=0, config=replace(WORDED, frames=6, mit_layers=1)).mit
    settings = Rehearsal(steps=250, batch=48, pool=96, lr=3e-3, warmup_steps=20, renew_every=100, renew=8)
    losses = rehearse(mit, Guides(128, seed=0), library, settings, seed=0)
    assert len(losses) == 250
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])


def test_pool_keeps_numbers_and_thumbnails_together(library):
    pool = render_pool(library, 5, 4, np.random.default_rng(0))
    assert isinstance(pool, Pool)
    assert pool.thumbnail_BTP.shape == (5, 4, THUMBNAIL_SIDE**2)
    assert pool.numbers_BG.shape == (5, CAMERA_NUMBERS)
    still = pool.camera_B == CAMERAS.index("static")
    assert (pool.numbers_BG[still] == 0).all()


def test_figures_of_a_model_that_knows_nothing_are_at_chance(library):
    model = XClip(WORDED)
    model.load_state_dict({module_name(name): tensor for name, tensor in random_state(WORDED).items()})
    figures = validate_shots(model.eval(), replace(library, objects=dot_library().objects), seed=0, clips=64)
    assert figures["camera motions, labels"] < 0.5
    assert {"object towards or away", "cut", "tint", "mirrored: left and right swap"} <= figures.keys()
    assert all(0 <= value <= 1 or np.isnan(value) for value in figures.values())
