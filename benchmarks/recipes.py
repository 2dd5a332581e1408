"""What people do without this package, as processes that are asked for one video after the other.

- `copied`: the recipe of tutorials. PyAV decodes every frame, HuggingFace's image processor prepares eight of each
  window, XCLIPModel in float32 takes one clip at a time.
- `strong`: what somebody who knows the tools would write. torchcodec, which seeks, decodes with all cores and scales
  while it decodes; XCLIPModel in bfloat16, or in float32 where that is as fast, takes eight clips at a time.

Both take torch's own number of threads, all cores, and the same moments as the index of this package. Weights are
random, of B/32: that changes no speed, and nothing is downloaded. `python -m benchmarks.recipes NAME` reads jobs as
lines of JSON and answers each with a line; the first line says what starting took, or that a library is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WINDOWS_PER_BATCH = 8
SIDE = 224


def model_of_huggingface() -> Any:
    """XCLIPModel of B/32 with random weights."""
    import torch
    from transformers import XCLIPConfig, XCLIPModel

    torch.manual_seed(0)
    config = XCLIPConfig()
    config.vision_config.num_frames = 8
    return XCLIPModel(config).eval()


class Copied:
    """All frames through PyAV, float32, clip by clip."""

    def __init__(self) -> None:
        import av
        import torch
        from transformers import VideoMAEImageProcessor

        self.av, self.torch = av, torch
        self.model = model_of_huggingface()
        size = {"shortest_edge": SIDE}
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self.processor = VideoMAEImageProcessor(
            size=size, crop_size={"height": SIDE, "width": SIDE}, image_mean=mean, image_std=std
        )

    def __call__(self, file: str, moments_s: list[list[float]]) -> int:
        """Vectors of a video: how many."""
        vectors = []
        with self.av.open(file) as container:
            frames = iter(container.decode(video=0))
            frame = next(frames)
            start_s = frame.time
            for window in moments_s:
                clip = []
                for moment in window:
                    while frame.time - start_s < moment and (later := next(frames, None)) is not None:
                        frame = later
                    clip.append(frame.to_ndarray(format="rgb24"))
                pixels = self.processor(clip, return_tensors="pt")["pixel_values"]
                with self.torch.inference_mode():
                    vectors.append(self.model.get_video_features(pixels).pooler_output)
            for _ in frames:  # a full pass: the recipe goes through the file and does not know where it may stop
                pass
        return len(self.torch.cat(vectors))


class Strong:
    """The frames through torchcodec, the faster precision, batches."""

    def __init__(self) -> None:
        import torch
        import torchcodec.decoders
        from torchvision.transforms import v2

        from benchmarks.decoders import needs_ffmpeg
        from xclip_core.fast import faster_dtype

        needs_ffmpeg()
        self.torch, self.decoders, self.v2 = torch, torchcodec.decoders, v2
        self.dtype = faster_dtype("cpu")
        print(f"strong: {self.dtype}", file=sys.stderr, flush=True)
        self.model = model_of_huggingface().to(self.dtype)
        self.mean, self.std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )

    def __call__(self, file: str, moments_s: list[list[float]]) -> int:
        """Vectors of a video: how many."""
        decoder = self._opened(file)
        first_s, end_s = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
        vectors = []
        for number in range(0, len(moments_s), WINDOWS_PER_BATCH):
            windows = moments_s[number : number + WINDOWS_PER_BATCH]
            wanted_s = [min(first_s + moment, end_s - 1e-3) for window in windows for moment in window]
            frames = decoder.get_frames_played_at(wanted_s).data.float().div_(255)
            pixels = ((frames - self.mean) / self.std).to(self.dtype)
            with self.torch.inference_mode():
                clips = pixels.unflatten(0, (len(windows), -1))
                vectors.append(self.model.get_video_features(clips).pooler_output)
        return len(self.torch.cat(vectors))

    def _opened(self, file: str) -> Any:
        """A decoder that makes frames of the model's size."""
        of = self.decoders.VideoDecoder(file, seek_mode="approximate").metadata  # that mode reads the header only
        scale = SIDE / min(of.height, of.width)
        shape = (round(of.height * scale), round(of.width * scale))
        transforms = [self.v2.Resize(shape), self.v2.CenterCrop(SIDE)]
        return self.decoders.VideoDecoder(file, num_ffmpeg_threads=0, transforms=transforms)


RECIPES = {"copied": Copied, "strong": Strong}


class Peer:
    """A recipe in a process of its own; `missing` says why it cannot run here, else it is None."""

    def __init__(self, name: str) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.recipes", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.missing: str | None = self._answer()["missing"]
        self.start_s = time.perf_counter() - began

    def __call__(self, file: Path, moments_s: list[list[float]]) -> dict[str, Any]:
        """What a video takes: `seconds`, `cpu_s` of all threads, and `clips`, how many vectors come out."""
        assert self._process.stdin is not None
        print(json.dumps({"file": str(file), "moments_s": moments_s}), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the recipe's process ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(name: str) -> None:
    """Answers jobs until there are no more."""
    try:
        recipe = RECIPES[name]()
    except (ImportError, RuntimeError, OSError) as error:  # torchcodec without FFmpeg may raise any of them
        print(json.dumps({"missing": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}), flush=True)
        return
    print(json.dumps({"missing": None}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        began, busy = time.perf_counter(), time.process_time()
        clips = recipe(job["file"], job["moments_s"])
        taken = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - busy}
        print(json.dumps({**taken, "clips": clips}), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
