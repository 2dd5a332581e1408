"""`footage pretrain`: makes the embedded model again, from nothing but this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    out: Annotated[Path, typer.Argument(help="The file to write, .safetensors; its model card and log go beside it.")],
    seed: Annotated[int, typer.Option(help="Every random number comes from it.")] = 0,
    effort: Annotated[float, typer.Option(help="Times the steps of the shipped recipe; 0.01 for a trial.")] = 1.0,
    clips: Annotated[int, typer.Option(help="Held-out clips per figure of the card.")] = 900,
    pictures: Annotated[Path | None, typer.Option(help="A folder of pictures and cut-outs to train over.")] = None,
    backdrops: Annotated[Path | None, typer.Option(help="A folder of pictures to measure over, as well.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; results differ in the last digits between counts.")] = 1,
) -> None:
    """Train the embedded model on generated footage, measure it, and write the file, its card and its log."""
    import logging

    import torch

    from xclip_core.pretrain import Plan
    from xclip_core.release import write_release

    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(out.with_suffix(".log"))]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    torch.set_num_threads(threads)
    measured = write_release(out, Plan(seed=seed, pictures=pictures).scaled(effort), clips=clips, backdrops=backdrops)
    for footage, figures in {**measured.tables, **measured.shots}.items():
        print(f"\nOn {footage}:")  # noqa: T201  # a job reports
        for name, value in figures.items():
            print(f"{value:.3f}  {name}")  # noqa: T201
    print(f"{out} and {out.with_suffix('.md')} are written.")  # noqa: T201


if __name__ == "__main__":
    typer.run(pretrain)
