"""Words for what scenes show: many wordings per value, some of them kept from training.

A held-out wording is made of words that do occur in training, in a sentence, or with a verb, that does not: it asks
whether the text tower has learnt words rather than strings. `wordings` lists both kinds, `LABELS` holds the short
names for people, and `captions` builds whole sentences from the same tables. Terms of other things are in `terms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from xclip_core.scenes import DIRECTIONS, VALUES
from xclip_core.terms import TALK, Talk, article


@dataclass(frozen=True, slots=True)
class Action:
    """A verb phrase: "moves" / "moving" and where to ("to the left"; empty for what goes nowhere)."""

    finite: str
    participle: str
    towards: str = ""

    def says(self, verb: str, adverb: str = "") -> str:
        """The phrase with one of its verb forms, an adverb between verb and direction."""
        return " ".join(word for word in (verb, adverb, self.towards) if word)


VERBS = (
    ("moves", "moving"),
    ("goes", "going"),
    ("travels", "travelling"),
    ("slides", "sliding"),
    ("drifts", "drifting"),
    ("flies", "flying"),
)


def _corner(vertical: str, side: str, end: str, start: str) -> tuple[str, ...]:
    """Ways to name a diagonal, such as up, left, top, "bottom right"."""
    return (
        f"{vertical} and {side}",
        f"{vertical} and to the {side}",
        f"diagonally {vertical} to the {side}",
        f"towards the {end} {side} corner",
        f"from the {start} to the {end} {side}",
    )


TOWARDS = {
    "left": ("left", "to the left", "leftwards", "from right to left", "towards the left"),
    "right": ("right", "to the right", "rightwards", "from left to right", "towards the right"),
    "up": ("up", "upwards", "to the top", "from bottom to top", "towards the top"),
    "down": ("down", "downwards", "to the bottom", "from top to bottom", "towards the bottom"),
    "up-left": _corner("up", "left", "top", "bottom right"),
    "up-right": _corner("up", "right", "top", "bottom left"),
    "down-left": _corner("down", "left", "bottom", "top right"),
    "down-right": _corner("down", "right", "bottom", "top left"),
}
# What goes nowhere, and verbs that are a direction by themselves.
IDLE = {
    "still": (
        Action("stays still", "staying still"),
        Action("does not move", "not moving"),
        Action("stands still", "standing still"),
        Action("remains in place", "remaining in place"),
        Action("is motionless", "motionless"),
        Action("rests in place", "resting in place"),
    ),
    "growing": (
        Action("grows", "growing"),
        Action("gets bigger", "getting bigger"),
        Action("becomes larger", "becoming larger"),
        Action("expands", "expanding"),
        Action("comes closer", "coming closer"),
    ),
    "shrinking": (
        Action("shrinks", "shrinking"),
        Action("gets smaller", "getting smaller"),
        Action("becomes tiny", "becoming tiny"),
        Action("contracts", "contracting"),
        Action("becomes less big", "becoming less big"),
    ),
    "up": (Action("rises", "rising"),),
    "down": (Action("falls", "falling"), Action("sinks", "sinking")),
}
IDLE_HELD_OUT = {
    "still": (
        Action("remains still", "remaining still"),
        Action("stays in place", "staying in place"),
        Action("stands in place", "standing in place"),
    ),
    "growing": (Action("gets larger", "getting larger"), Action("becomes bigger", "becoming bigger")),
    "shrinking": (Action("becomes smaller", "becoming smaller"), Action("gets tiny", "getting tiny")),
}
SUBJECTS = ("something", "an object", "a shape", "a thing", "it")
DOING = ("{doing}", "{subject} {does}", "{subject} {doing}", "a video of {subject} {doing}", "{subject} that {does}")
DOING_HELD_OUT = ("footage of {subject} {doing}", "the object {does}", "there is {subject} {doing}")
# What cameras do, in the same way: verbs of each kind of motion, and where to. A held-out pair is known by its parts.
CAMERA_VERBS = {
    "pan": (("pans", "panning"), ("turns", "turning"), ("swings", "swinging"), ("moves", "moving")),
    "tilt": (("tilts", "tilting"), ("turns", "turning"), ("swings", "swinging"), ("moves", "moving")),
}
CAMERA_TOWARDS = {
    "pan left": ("left", "to the left", "leftwards"),
    "pan right": ("right", "to the right", "rightwards"),
    "tilt up": ("up", "upwards"),
    "tilt down": ("down", "downwards"),
}
CAMERA_IDLE = {
    "pan left": ("panning left", "a pan to the left"),
    "pan right": ("panning right", "a pan to the right"),
    "tilt up": ("tilting up", "a tilt upwards"),
    "tilt down": ("tilting down", "a tilt downwards"),
    "static": ("the camera is still", "a static camera", "the camera does not move", "a static shot"),
    "zoom in": ("the camera zooms in", "zooming in", "a zoom in", "the camera moves closer", "the camera comes closer"),
    "zoom out": ("the camera zooms out", "zooming out", "a zoom out", "the camera moves away", "the camera pulls back"),
    "shake": ("the camera shakes", "a shaky camera", "shaky footage", "the camera trembles", "a trembling camera"),
}
CAMERA_IDLE_HELD_OUT = {
    "static": ("the camera stays still", "a still camera", "the camera is static"),
    "zoom in": ("the camera gets closer", "camera zooming in", "the shot zooms in"),
    "zoom out": ("the camera gets away", "camera zooming out", "the shot zooms out"),
    "shake": ("the camera is shaky", "a shaky shot", "trembling footage"),
}
CAMERA_DOING = ("{t}", "a video , {t}", "a scene , {t}", "{t} in the video")
CAMERA_DOING_HELD_OUT = ("footage , {t}", "a picture , {t}", "{t} in the scene")


def _label(talk: Talk, value: str) -> str:
    """The first term of a value in the first sentence of its attribute."""
    term = talk.terms[value][0]
    return talk.train[0].format(a=article(term), t=term)


# One short name per (attribute, value), for people and for tagging; all of them are training wordings.
LABELS: dict[tuple[str, str], str] = {
    **{("motion", direction): f"moving {TOWARDS[direction][0]}" for direction in DIRECTIONS},
    ("motion", "still"): "not moving",
    ("motion", "growing"): "growing",
    ("motion", "shrinking"): "shrinking",
    **{("camera", camera): terms[0] for camera, terms in CAMERA_IDLE.items()},
    **{(name, value): _label(talk, value) for name, talk in TALK.items() for value in VALUES[name]},
}


@cache
def actions(motion: str, *, held_out: bool = False) -> tuple[Action, ...]:
    """The verb phrases for a motion.

    Verb i + 1 never meets direction phrase i in training: both words are known, the pair is held out.
    """
    rest = (IDLE_HELD_OUT if held_out else IDLE).get(motion, ())
    paired = tuple(
        Action(*verb, phrase)
        for j, phrase in enumerate(TOWARDS.get(motion, ()))
        for i, verb in enumerate(VERBS)
        if (i == j + 1) == held_out
    )
    return paired + rest


@cache
def wordings(attribute: str, value: str, *, held_out: bool = False) -> tuple[str, ...]:
    """Every wording of one value that stands alone, either those of training or those held out from it."""
    if attribute == "motion":
        return _motion_wordings(value, held_out=held_out)
    if attribute == "camera":
        return _camera_wordings(value, held_out=held_out)
    talk = TALK[attribute]
    patterns = talk.held_out if held_out else talk.train
    return tuple(pattern.format(a=article(term), t=term) for term in talk.terms[value] for pattern in patterns)


def _motion_wordings(motion: str, *, held_out: bool) -> tuple[str, ...]:
    """Sentences about a motion; held-out verb phrases are also put into sentences held out."""
    patterns = DOING + DOING_HELD_OUT if held_out else DOING
    return tuple(
        pattern.format(subject=subject, does=action.says(action.finite), doing=action.says(action.participle))
        for action in actions(motion, held_out=held_out)
        for pattern in patterns
        for subject in (SUBJECTS if "{subject}" in pattern else SUBJECTS[:1])
    )


@cache
def camera_terms(camera: str, *, held_out: bool = False) -> tuple[str, ...]:
    """Phrases for a camera motion, such as "the camera pans left"; paired as `actions` are."""
    paired = tuple(
        f"the camera {finite} {phrase}" if k % 2 else f"camera {participle} {phrase}"
        for j, phrase in enumerate(CAMERA_TOWARDS.get(camera, ()))
        for i, (finite, participle) in enumerate(CAMERA_VERBS.get(camera.split(maxsplit=1)[0], ()))
        for k in range(2)
        if (i == j + 1) == held_out
    )
    return paired + (CAMERA_IDLE_HELD_OUT if held_out else CAMERA_IDLE).get(camera, ())


def _camera_wordings(camera: str, *, held_out: bool) -> tuple[str, ...]:
    """Sentences about a camera motion; held-out phrases are also put into sentences held out."""
    patterns = CAMERA_DOING + CAMERA_DOING_HELD_OUT if held_out else CAMERA_DOING
    return tuple(pattern.format(t=term) for term in camera_terms(camera, held_out=held_out) for pattern in patterns)
