"""Words for everything but motion: terms for each value, and the sentences they are put into.

Motion needs verbs and directions and has `wordings` to itself; the difference between training and held-out sentences
is explained there.
"""

from __future__ import annotations

from dataclasses import dataclass

from xclip_core.scenes import VALUES


@dataclass(frozen=True, slots=True)
class Talk:
    """How one attribute is spoken of: terms per value, put into sentences; `{a}` is the article the term wants."""

    terms: dict[str, tuple[str, ...]]
    train: tuple[str, ...]
    held_out: tuple[str, ...] = ()


ADJECTIVE = ("{t}", "{a} {t} object", "something {t}", "{a} {t} thing", "the object is {t}", "{a} {t} shape")
ADJECTIVE_HELD_OUT = ("the thing is {t}", "a video of something {t}", "the shape is {t}", "a video of {a} {t} shape")
GROUND = (
    "{a} {t} background",
    "over {a} {t} background",
    "something over {a} {t} background",
    "the background is {t}",
    "a picture with {a} {t} background",
)
GROUND_HELD_OUT = (
    "an object over {a} {t} background",
    "a video with {a} {t} background",
    "a thing over {a} {t} background",
)
TALK = {
    "shape": Talk(
        {
            "circle": ("circle", "disc", "ball"),
            "square": ("square", "box"),
            "triangle": ("triangle",),
            "star": ("star",),
            "cross": ("cross", "plus sign"),
        },
        ("{t}", "{a} {t}", "a picture of {a} {t}", "the object is {a} {t}", "there is {a} {t}"),
        ("the thing is {a} {t}", "it is {a} {t}", "a video with {a} {t}"),
    ),
    "colour": Talk(
        {
            "red": ("red",),
            "orange": ("orange",),
            "yellow": ("yellow",),
            "green": ("green",),
            "blue": ("blue",),
            "purple": ("purple", "violet"),
            "black": ("black",),
            "white": ("white",),
        },
        ADJECTIVE,
        ADJECTIVE_HELD_OUT,
    ),
    "size": Talk(
        {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}, ADJECTIVE, ADJECTIVE_HELD_OUT
    ),
    "speed": Talk(
        {"slow": ("slowly", "at a slow pace"), "fast": ("quickly", "fast", "rapidly", "at a fast pace")},
        (
            "moving {t}",
            "something moves {t}",
            "an object moving {t}",
            "it goes {t}",
            "travelling {t}",
        ),
        ("something goes {t}", "a shape moving {t}", "an object travelling {t}"),
    ),
    "look": Talk(
        {
            "dark": ("dark", "dim"),
            "bright": ("bright", "bright and pale"),
            "black-and-white": ("black and white", "greyscale", "colourless"),
        },
        ("{a} {t} video", "{a} {t} scene", "{a} {t} picture", "the scene is {t}", "footage that is {t}"),
        ("{t} footage", "the video is {t}", "the picture is {t}"),
    ),
    "background": Talk(
        {
            "plain": ("plain", "even"),
            "gradient": ("gradient", "shaded"),
            "textured": ("textured", "patterned", "rough"),
            "cluttered": ("cluttered", "busy"),
        },
        GROUND,
        GROUND_HELD_OUT,
    ),
    "ground": Talk({"dark": ("dark",), "light": ("light", "pale")}, GROUND, GROUND_HELD_OUT),
    "place": Talk(
        {
            "top left": ("at the top left", "in the top left corner", "in the upper left"),
            "top centre": ("at the top", "in the top middle"),
            "top right": ("at the top right", "in the top right corner", "in the upper right"),
            "middle left": ("on the left", "at the left side"),
            "middle centre": ("in the centre", "in the middle"),
            "middle right": ("on the right", "at the right side"),
            "bottom left": ("at the bottom left", "in the bottom left corner", "in the lower left"),
            "bottom centre": ("at the bottom", "in the bottom middle"),
            "bottom right": ("at the bottom right", "in the bottom right corner", "in the lower right"),
        },
        ("{t}", "something {t}", "an object {t}", "a shape {t}", "it is {t}"),
        ("a thing {t}", "the object is {t}", "there is something {t}"),
    ),
    "cut": Talk(
        {
            "uncut": ("a single shot", "one shot", "no cut"),
            "cut": ("a cut", "a scene change", "a cut to another scene"),
        },
        ("{t}", "a video with {t}", "there is {t}"),
        ("footage with {t}", "a scene with {t}"),
    ),
    "tint": Talk(
        {colour: (f"mostly {colour}", f"predominantly {colour}") for colour in VALUES["tint"]},
        ("{t}", "{a} {t} video", "{a} {t} scene", "{a} {t} picture", "footage that is {t}"),
        ("{t} footage", "the video is {t}", "the scene is {t}"),
    ),
}


def article(word: str) -> str:
    """The indefinite article that a word takes."""
    return "an" if word[0] in "aeiou" else "a"
