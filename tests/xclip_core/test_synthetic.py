"""Generated footage: the pictures show what the scene says, and the texts say what the scene is."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from xclip_core.captions import Caption, caption, label_captions, training_words, truth_table
from xclip_core.drawing import frame_times, render, render_planes
from xclip_core.pictures import read_library
from xclip_core.scenes import (
    COLOURS,
    DIRECTIONS,
    HEADING,
    MOTIONS,
    NINE_MOTIONS,
    OPPOSITE,
    VALUES,
    Scene,
    Shape,
    Speed,
    claims_of,
    grounds_for,
    place_of,
    random_scene,
)
from xclip_core.shots import CAMERAS
from xclip_core.synthetic import Recipe, batches, visible_claims
from xclip_core.takes import film_scene, filmed, scene_numbers, tint_claim
from xclip_core.views import cropped_view, whole_view
from xclip_core.wordings import LABELS, wordings

# Dark on a plain light ground, so that a threshold finds the object.
FOUND = Scene(colour="black", ground="light", background="plain", motion="still", size="large")
RECIPE = Recipe(frames=4, size=32, clips=6, captions=4, label_sets=2)


def object_mask(frames):
    """T x H x W: where a black object is, on a light ground."""
    return frames.max(axis=-1) < 90


def centroids(frames):
    """T x 2: the object's centre (x, y) in pixels."""
    return np.array([np.argwhere(mask).mean(axis=0)[::-1] for mask in object_mask(frames)])


def show(scene, times=(0.25, 0.5, 0.75), height=96, width=128):
    return render(scene, times=times, height=height, width=width)


@pytest.mark.parametrize("motion", DIRECTIONS)
@pytest.mark.parametrize("speed", get_args(Speed))
def test_object_moves_where_the_scene_says(motion, speed):
    start, _, end = centroids(show(replace(FOUND, motion=motion, speed=speed, size="small")))
    step = (end - start) / np.linalg.norm(end - start)
    assert step == pytest.approx(HEADING[motion], abs=0.05)


def test_fast_is_faster_than_slow_for_every_seed():
    def travelled(speed, seed):
        start, _, end = centroids(show(replace(FOUND, motion="left", speed=speed, size="small", seed=seed)))
        return np.linalg.norm(end - start)

    assert max(travelled("slow", s) for s in range(20)) < min(travelled("fast", s) for s in range(20))


def test_still_object_does_not_move():
    frames = show(replace(FOUND, background="textured"))
    assert (frames == frames[0]).all()


def test_growing_grows_and_shrinking_shrinks():
    areas = {m: object_mask(show(replace(FOUND, motion=m))).sum(axis=(1, 2)) for m in ("growing", "shrinking")}
    assert (np.diff(areas["growing"]) > 0).all()
    assert (np.diff(areas["shrinking"]) < 0).all()


def test_large_is_larger_than_small_for_every_shape_and_seed():
    for shape in get_args(Shape):
        sizes = {
            size: [object_mask(show(replace(FOUND, shape=shape, size=size, seed=s)))[0].sum() for s in range(8)]
            for size in ("small", "large")
        }
        assert max(sizes["small"]) < min(sizes["large"])


@pytest.mark.parametrize("colour", tuple(COLOURS))
def test_object_has_the_named_colour(colour):
    middle = show(Scene(colour=colour, ground=grounds_for(colour)[0]))[1, 48, 64].astype(int)
    distances = {name: np.abs(np.subtract(middle, rgb)).sum() for name, rgb in COLOURS.items()}
    assert min(distances, key=distances.get) == colour


def test_object_stands_where_the_scene_puts_it():
    (x, y), *_ = centroids(show(replace(FOUND, middle=(0.3, -0.2), size="small")))
    assert ((x + 0.5 - 64) / 96, (y + 0.5 - 48) / 96) == pytest.approx((0.3, -0.2), abs=0.01)


def test_looks_darken_brighten_and_take_colour_away():
    scene = Scene(colour="red", background="textured", ground="light")
    level = {look: show(replace(scene, look=look)).mean() for look in ("normal", "dark", "bright")}
    assert level["dark"] < 0.4 * level["normal"]
    assert show(replace(scene, ground="dark", look="bright")).min() > 90
    grey = show(replace(scene, look="black-and-white"))
    assert (grey == grey[..., :1]).all()


def test_same_scene_gives_same_frames_and_another_seed_does_not():
    scene = Scene(background="textured")
    assert (show(scene) == show(scene)).all()
    assert (show(scene) != show(replace(scene, seed=1))).any()


def test_scene_is_the_same_picture_at_any_resolution():
    scene = Scene(background="gradient", motion="up-left", middle=(0.1, 0.05))
    large = show(scene, height=240, width=320).astype(float)
    small = show(scene, height=120, width=160).astype(float)
    halved = large.reshape(3, 120, 2, 160, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small).mean() < 1.0


def test_crop_is_the_middle_of_the_whole_picture():
    scene = Scene(background="textured", motion="right")
    times = frame_times(4)
    whole = render_planes(scene, times, whole_view(96, 128))
    crop = render_planes(scene, times, cropped_view(64, 64, 96))
    assert np.abs(whole[:, :, 16:80, 32:96].astype(int) - crop).max() <= 1  # float32 coordinates differ in the last bit


def test_backdrop_replaces_the_background_only():
    backdrop = np.full((96, 128, 3), 200, dtype=np.uint8)
    frames = render(replace(FOUND, size="small"), times=[0.5], height=96, width=128, backdrop=backdrop)
    assert (frames[0, 0] == 200).all()
    assert frames[0, 48, 64].max() < 90


def test_render_gives_uint8_rgb_frames():
    frames = show(FOUND)
    assert frames.shape == (3, 96, 128, 3)
    assert frames.dtype == np.uint8


def test_claims_leave_out_what_cannot_be_seen():
    assert "colour" not in claims_of(Scene(look="black-and-white"))
    assert "speed" not in claims_of(Scene(motion="still"))
    assert "place" not in claims_of(Scene(motion="left"))
    assert "size" not in claims_of(Scene(motion="growing"))
    assert "ground" not in claims_of(Scene(look="dark", ground="light"))
    take = film_scene(Scene(motion="left"), 1, 32, np.random.default_rng(0))
    assert not {"motion", "speed", "camera", "cut"} & visible_claims(take.claims, frames=1).keys()
    assert {"motion", "camera"} <= visible_claims(take.claims, frames=2).keys()


@pytest.mark.parametrize(
    ("middle", "place"), [((0, 0), "middle centre"), ((-0.3, -0.3), "top left"), ((0.1, 0.2), "bottom centre")]
)
def test_place_is_the_ninth_of_the_picture(middle, place):
    assert place_of(middle) == place


def test_random_scenes_cover_every_value_and_stand_out():
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng) for _ in range(600)]
    claimed = {(name, value) for scene in scenes for name, value in claims_of(scene).items()}
    of_shots = ("camera", "cut", "tint")
    assert claimed == {(name, value) for name, values in VALUES.items() for value in values if name not in of_shots}
    assert all(scene.ground in grounds_for(scene.colour) for scene in scenes)
    assert {random_scene(rng, NINE_MOTIONS).motion for _ in range(200)} == set(NINE_MOTIONS)


def test_opposites_point_the_other_way():
    for motion, other in OPPOSITE.items():
        assert HEADING[motion] == pytest.approx([-x for x in HEADING[other]])


def all_wordings(*, held_out):
    return [w for name, values in VALUES.items() for v in values for w in wordings(name, v, held_out=held_out)]


def test_held_out_wordings_are_new_sentences_of_known_words():
    train, held_out = set(all_wordings(held_out=False)), set(all_wordings(held_out=True))
    assert not train & held_out
    assert {word for text in held_out for word in text.split()} <= training_words()


def test_held_out_verb_phrases_never_occur_in_training_captions():
    rng = np.random.default_rng(1)
    truths = [claims_of(random_scene(rng, DIRECTIONS)) for _ in range(2000)]
    texts = [caption(truth, rng).text for truth in truths]
    assert any(text.endswith("moving left") for text in texts)
    assert not any(text.endswith(("going left", "goes left", "going up", "goes up")) for text in texts)


def test_no_wording_stands_for_two_values():
    for name, values in VALUES.items():
        texts = [w for v in values for h in (False, True) for w in set(wordings(name, v, held_out=h))]
        assert len(texts) == len(set(texts))


def test_every_value_has_a_label_among_its_training_wordings():
    for name, values in VALUES.items():
        assert all(LABELS[name, value] in wordings(name, value) for value in values)


def test_captions_claim_part_of_the_truth_in_known_words():
    rng = np.random.default_rng(2)
    for _ in range(500):
        truth = claims_of(random_scene(rng))
        said = caption(truth, rng)
        assert said.claims
        assert said.claims.items() <= truth.items()
        assert set(said.text.split()) <= training_words()


def test_truth_table_finds_every_scene_a_caption_is_true_of():
    scenes = [claims_of(Scene(colour="red", motion="left")), claims_of(Scene(colour="red", motion="right"))]
    texts = [
        Caption("", {"colour": "red"}),
        Caption("", {"colour": "red", "motion": "left"}),
        Caption("", {"shape": "star"}),
    ]
    assert truth_table(scenes, texts).tolist() == [[True, True, False], [True, False, False]]


def test_batches_are_the_same_for_the_same_seed():
    one, two, other = (next(batches(RECIPE, seed)) for seed in (3, 3, 4))
    assert one.texts == two.texts
    assert (one.frames_BTHWC == two.frames_BTHWC).all()
    assert (one.truth_BK == two.truth_BK).all()
    assert other.texts != one.texts


def test_evened_batches_make_rest_look_likely_and_nothing_else():
    shares = {}
    for evened in (False, True):
        recipe = replace(RECIPE, shots=1.0, label_sets=len(VALUES) - 2, evened=evened)
        batch = next(batches(recipe, 3, read_library(None, held_out=False)))
        shares[evened] = [choice.shares for choice in batch.choices if choice.shares]
    assert shares[False] == []
    camera, cut = sorted(shares[True], key=len, reverse=True)
    assert camera[CAMERAS.index("static")] == pytest.approx(150 / 157)
    assert cut[VALUES["cut"].index("uncut")] == pytest.approx(20 / 21)
    assert sum(camera) == pytest.approx(1.0)


def test_batch_offers_every_motion_and_its_own_captions():
    batch = next(batches(RECIPE, 5))
    assert batch.frames_BTHWC.shape == (6, 4, 32, 32, 3)
    captions, motion, camera, *others = batch.choices
    assert (captions.stop - captions.start, captions.both_ways) == (4, True)
    assert batch.truth_BK[range(4), range(4)].all()
    assert motion.stop - motion.start == len(MOTIONS)
    assert (batch.truth_BK[:, motion.start : motion.stop].sum(dim=1) == 1).all()
    assert camera.stop - camera.start == len(VALUES["camera"])
    assert batch.truth_BK[:, camera.start].all()  # drawn scenes have a static camera, the first value
    assert len(others) == 2


def test_numbers_tell_where_the_object_goes():
    left, down, growing = (scene_numbers(Scene(motion=m, middle=(0.1, 0.0))) for m in ("left", "down", "growing"))
    assert left[0] == pytest.approx(0.5)
    assert left[2] < -1
    assert down[3] > 1
    assert (left[4], growing[2:5]) == (0, (0, 0, 2))
    assert left[5:] == (0, 0, 0, 0)  # the camera rests


def test_easy_scenes_are_large_on_plain_ground():
    batch = next(batches(replace(RECIPE, easy=1.0, clips=30, captions=30, label_sets=8), 9))
    assert not any("textured" in text or "tiny" in text for text in batch.texts[:30])


def test_single_frames_never_speak_of_time():
    words = {w for motion in DIRECTIONS for w in wordings("motion", motion)}
    batch = next(batches(replace(RECIPE, frames=1, clips=40, captions=40, label_sets=7), 6))
    assert not words & set(batch.texts)
    assert not any("mov" in text or "slowly" in text for text in batch.texts)


def test_filming_wears_frames_without_changing_what_they_show():
    scene = replace(FOUND, motion="left", size="small")
    rng = np.random.default_rng(7)
    for _ in range(10):
        frames = filmed(scene, 6, 64, rng).transpose(0, 2, 3, 1)
        seen = [t for t, mask in enumerate(object_mask(frames)) if mask.sum() > 20]
        assert len(seen) >= 3
        assert (np.diff(centroids(frames[seen])[:, 0]) < 0).all()


def test_label_captions_follow_the_order_of_the_values():
    said = label_captions("colour", VALUES["colour"], np.random.default_rng(8), held_out=True)
    assert [c.claims["colour"] for c in said] == list(VALUES["colour"])


@pytest.mark.parametrize(
    ("rgb", "said"),
    [((200, 60, 50), "red"), ((60, 170, 70), "green"), ((60, 80, 200), "blue"), ((120, 118, 121), None)],
)
def test_tint_is_the_colour_that_rules(rgb, said):
    frames = np.broadcast_to(np.array(rgb, dtype=np.uint8)[None, :, None, None], (2, 3, 8, 8))
    assert tint_claim(frames).get("tint") == said
