"""Two or three lines of each command that people would type: the end of its `--help`. Tests parse every one."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "index": (
        "footage index ~/Videos my_archive",
        "footage index s3://bucket/videos s3://bucket/archive --model microsoft/xclip-base-patch32",
        "footage index manifest.csv my_shard --shard 1/8",
    ),
    "reindex": (
        "footage reindex my_archive",
        "footage reindex my_archive --json --metrics /var/lib/node_exporter/footage.prom",
        "footage reindex my_archive --forget /mnt/old_disk --yes",
    ),
    "search": (
        'footage search my_archive "a red circle moves left"',
        'footage search my_archive "a dog" --not "a beach" --where "duration_s > 60" --html hits.html',
        "footage search my_archive --like holiday.mp4 --at 12.5 --json",
    ),
    "serve": (
        "footage serve my_archive",
        "footage serve my_archive --port 0 --labels sports.yaml",
        "footage serve my_archive --host 0.0.0.0",
    ),
    "tag": (
        "footage tag my_archive labels.txt",
        "footage tag my_archive labels.yaml --mode multi --by-video --out tags.csv",
        "footage tag my_archive labels.yaml --mode multi --calibration labels.calibration.json",
    ),
    "calibrate": (
        "footage calibrate my_archive labeled.csv --labels labels.yaml",
        "footage calibrate my_archive labeled.csv --labels labels.yaml --min-precision 0.9 --diagram reliability.png",
    ),
    "export": (
        "footage export my_archive clips.parquet",
        "footage export my_archive chapters --format vtt",
        "footage export my_archive tags.csv --format videos --labels labels.yaml",
    ),
    "info": ("footage info my_archive", "footage info my_archive --json"),
    "failures": ("footage failures my_archive", "footage failures my_archive --kind timeout --json"),
    "retry": ("footage retry my_archive", "footage retry my_archive --kind memory"),
    "verify": ("footage verify my_archive", "footage verify my_archive --deep --repair"),
    "doctor": ("footage doctor", "footage doctor my_archive --deep", "footage doctor --json"),
    "build-index": (
        "footage build-index my_archive --dry-run",
        "footage build-index my_archive --memory 16 --recall 0.95",
    ),
    "merge": ("footage merge whole shards/1 shards/2", "footage merge s3://bucket/whole /srv/shard-1 --wait 600"),
    "compact": ("footage compact my_archive --dry-run", "footage compact my_archive --retention 30"),
    "rollback": (
        "footage rollback my_archive 20260101T023000-3f9c1a",
        "footage rollback my_archive 20260101T023000-3f9c1a --yes",
    ),
    "models": ("footage models", "footage models --json"),
    "convert": (
        "footage convert k400_32_8.pth xclip-b32.safetensors",
        "footage convert microsoft/xclip-base-patch32 ./xclip-b32",
    ),
    "finetune": (
        "footage finetune videos_by_label my_model --epochs 20 --batch 16 --lr 1e-5",
        "footage finetune train.csv my_model --val val.csv --init microsoft/xclip-base-patch16-zero-shot --no-flip",
    ),
    "evaluate": (
        "footage evaluate test.csv --model my_model --html report.html",
        "footage evaluate split1.csv split2.csv split3.csv --protocol few --json",
    ),
    "eval-search": (
        "footage eval-search my_archive queries.csv",
        "footage eval-search my_archive queries.csv --html missed.html",
    ),
    "demo": ("footage demo", "footage demo demo --engine local"),
    "pretrain": (
        "footage pretrain trial.safetensors --effort 0.01 --clips 60",
        "footage pretrain model.safetensors --pictures pictures --backdrops backdrops",
    ),
}


def epilog(command: str) -> str:
    """The end of a command's help."""
    # \b keeps lines as they are.
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES.get(command, ()))
