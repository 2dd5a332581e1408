"""The pictures that the embedded model is trained and measured over: `python benchmarks/pictures.py FOLDER`.

Photographs and wallpapers become backgrounds, the stamps of Tux Paint objects. They are fetched with `apt-get download`
and unpacked without being installed; nothing of them is committed or shipped. SOURCES.md in the folder says what came
from where, under which licences, and goes into the model card.

`python benchmarks/pictures.py FOLDER VIDEOS` writes frames of real videos instead: backdrops to measure over.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
from PIL import Image, ImageStat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, its own folder would be there

from pipeline import demux

# Packages, and the folder of each that holds photographs or wallpapers.
BACKGROUNDS = {
    "gnome-backgrounds": ".",
    "lomiri-wallpapers-16.04": ".",
    "lomiri-wallpapers-20.04": ".",
    "lxqt-themes": "usr/share/lxqt/wallpapers",
    "mate-backgrounds": ".",
    "plasma-workspace-wallpapers": ".",
    "tuxpaint-data": "usr/share/tuxpaint/templates",
    "ukui-wallpapers": ".",
}
OBJECTS = {"tuxpaint-stamps-default": "."}
VIDEOS = (".avi", ".mkv", ".mov", ".mp4", ".webm")
MIN_CONTRAST = 12.0  # standard deviation of a frame's grey levels
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
SHORT_SIDE_PX, OBJECT_SIDE_PX = 576, 192
MIN_BACKGROUND_PX, MIN_OBJECT_PX = 400, 60
OPACITY = (30, 235)  # mean of an object's: neither a speck nor a full rectangle
# Sizes and shades of one wallpaper are one family: everything up to `__` in the name that it gets.
SHADE = re.compile(r"(-[dl]|_\d+x\d+)$")


def main(folder: Path) -> None:
    """Fetches all packages and writes backgrounds, objects and SOURCES.md below `folder`."""
    Image.MAX_IMAGE_PIXELS = None
    for name in ("backgrounds", "objects"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for package, part in {**BACKGROUNDS, **OBJECTS}.items():
            root, version = unpacked(package, Path(scratch))
            write = write_object if package in OBJECTS else write_background
            count = sum(write(file, package, root, folder) for file in pictures(root / part))
            rows.append(f"| {package} {version} | {count} | {', '.join(licences(root, package))} |")
            print(f"{package}: {count}")
    head = "from Debian's packages, by `benchmarks/pictures.py`; used for training and measuring alone, none ships."
    table = ["| package | pictures | licences |", "| --- | --- | --- |", *rows]
    (folder / "SOURCES.md").write_text("\n".join([head, "", *table, ""]), encoding="utf-8")


def unpacked(package: str, scratch: Path) -> tuple[Path, str]:
    """Where a package was unpacked to, and its version."""
    subprocess.run(["apt-get", "download", "-q", package], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
    archive = next(scratch.glob(f"{package}_*.deb"))
    subprocess.run(["dpkg", "-x", archive, scratch / package], check=True)
    version = subprocess.run(["dpkg-deb", "-f", archive, "Version"], check=True, capture_output=True, text=True)
    return scratch / package, version.stdout.strip()


def pictures(root: Path) -> Iterator[Path]:
    """Every picture of a package, links and previews left out."""
    for file in sorted(root.rglob("*")):
        if file.suffix.lower() in ENDINGS and not file.is_symlink() and "screenshot" not in file.name:
            yield file


def licences(root: Path, package: str) -> list[str]:
    """The licences that a package's copyright file names, in a field or in a sentence."""
    text = (root / "usr/share/doc" / package / "copyright").read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^License: *(\S.*)$|^ *Licensed under (.*?)(?: License)?\.?$", text, re.MULTILINE)
    return sorted({field or sentence for field, sentence in found}) or ["see its copyright file"]


def write_background(file: Path, package: str, root: Path, folder: Path) -> bool:
    """A picture with its short side at 576 pixels; not one that is small or upright. Whether it was written."""
    with Image.open(file) as image:
        if min(image.size) < MIN_BACKGROUND_PX or image.width < image.height:
            return False
        scale = SHORT_SIDE_PX / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    # KDE has a folder for each wallpaper, the others a file for each size or shade.
    parts = file.relative_to(root).parts
    family = parts[3] if "contents" in parts else SHADE.sub("", file.stem)
    number = sum(1 for _ in (folder / "backgrounds").glob(f"{package}-{family}__*"))
    small.save(folder / "backgrounds" / f"{package}-{family}__{number}.png")
    return True


def write_object(file: Path, _package: str, _root: Path, folder: Path) -> bool:
    """A cut-out with its long side at 192 pixels; not one without transparency. Whether it was written."""
    with Image.open(file) as image:
        if min(image.size) < MIN_OBJECT_PX or "A" not in image.getbands():
            return False
        small = image.convert("RGBA")
    small.thumbnail((OBJECT_SIDE_PX, OBJECT_SIDE_PX))
    levels = small.getchannel("A").histogram()
    opacity = sum(level * count for level, count in enumerate(levels)) / (small.width * small.height)
    if not OPACITY[0] <= opacity <= OPACITY[1]:
        return False
    small.save(folder / "objects" / f"{file.stem}.png")
    return True


def backdrops(folder: Path, videos: Path) -> None:
    """Writes the frames a quarter and three quarters into each video below `videos`, but for those that show little."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(path for path in videos.rglob("*") if path.suffix.lower() in VIDEOS):
        with av.open(str(file), **demux.ANY_METADATA) as container:
            frames = [frame.to_image() for frame in container.decode(video=0)]
        for number, image in enumerate((frames[len(frames) // 4], frames[len(frames) * 3 // 4])):
            if ImageStat.Stat(image.convert("L")).stddev[0] >= MIN_CONTRAST:
                image.save(folder / f"{file.stem}__{number}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1])) if len(sys.argv) == 2 else backdrops(Path(sys.argv[1]), Path(sys.argv[2]))
