"""Which software made a result: written down with every run, because numbers change with it."""

from __future__ import annotations

import platform
from importlib import metadata

LIBRARIES = (
    "footage",
    "torch",
    "torchvision",
    "av",
    "open_clip_torch",
    "deltalake",
    "pyarrow",
    "faiss-gpu",
    "faiss-cpu",
    "ray",
)


def versions() -> dict[str, str]:
    """Versions of Python, footage and the libraries that decide numbers, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
