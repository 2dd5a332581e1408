"""Several training processes, on one machine or many: Ray Train starts them, joins them, and replaces the dead.

Beside `engine`, the only place that knows Ray; this half of Ray shares nothing with Ray Data but the cluster. Workers
find videos and the run's folder under the same paths as the driver: on several machines that is a shared file system.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

from pipeline import engine
from schemas.errors import EngineError

MAX_RESTARTS = 3  # of all workers, after one died; each goes on from the last checkpoint


def run_together(work: Callable[[str], None], *, workers: int, on_gpu: bool, scratch: Path) -> None:
    """Calls `work` with its device in `workers` processes that share a torch process group, and waits for all.

    `scratch` is a folder for Ray's own notes. Raises EngineError when a worker fails again and again.
    """
    ray = engine.start_ray()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, on what it will change one day
        from ray import train
        from ray.train.torch import TorchConfig, TorchTrainer

        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        trainer = TorchTrainer(
            _in_worker,
            train_loop_config={"work": ray.put(work), "on_gpu": on_gpu},
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
            scaling_config=train.ScalingConfig(num_workers=workers, use_gpu=on_gpu),
            run_config=train.RunConfig(
                name="finetune",
                storage_path=str(scratch.absolute()),
                failure_config=train.FailureConfig(max_failures=MAX_RESTARTS),
            ),
        )
        try:
            trainer.fit()
        except train.TrainingFailedError as error:
            raise EngineError(f"training on {workers} workers failed: {_last_line(error)}") from error


def _last_line(error: BaseException) -> str:
    """What a worker said last."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _in_worker(config: dict[str, object]) -> None:
    """One worker: its share of the work, on its device."""
    import ray
    from ray.train.torch import get_device

    work = ray.get(config["work"])
    work(str(get_device()) if config["on_gpu"] else "cpu")
