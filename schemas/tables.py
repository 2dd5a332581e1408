"""The six tables of an archive as pyarrow schemas. A change here needs a new `SCHEMA_VERSION`.

`videos` is append-only: the current row of a (video_id, space) is the one with the highest revision, and of those the
latest `indexed_at`. A clip is visible if its (video_id, revision, space) is that of a current row that is not gone.
"""

from __future__ import annotations

import pyarrow as pa

# 2 added `failures`, 3 `packets`; an archive of an earlier version has none until its next run makes them. 4 added the
# last two columns of `tags`, which read as null where a file or a table has none; tagging adds them to a table.
SCHEMA_VERSION = 4

_TIME = pa.timestamp("us", tz="UTC")

VIDEOS = pa.schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime_s", pa.float64()),
        ("fingerprint", pa.string()),
        ("revision", pa.int32()),
        ("space", pa.string()),
        ("duration_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("rate_hz", pa.float64()),
        ("codec", pa.string()),
        ("rotation", pa.int32()),
        ("clip_count", pa.int32()),
        ("decoded_fraction", pa.float64()),
        ("status", pa.string()),
        ("error_kind", pa.string()),
        ("error", pa.string()),
        ("stage", pa.string()),
        ("permanent", pa.bool_()),
        ("attempts", pa.int32()),
        ("run_id", pa.string()),
        ("indexed_at", _TIME),
    ]
)

# `space` is the partition column: it stands in the folder name and not in the Parquet files.
CLIPS = pa.schema(
    [
        ("clip_id", pa.string()),  # 16 hex digits; FAISS ids are the same 64 bits
        ("unit_id", pa.string()),
        ("video_id", pa.string()),
        ("revision", pa.int32()),
        ("space", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("frame_times_s", pa.list_(pa.float64())),
        ("intact_samples", pa.int32()),
        ("embedding", pa.list_(pa.float32())),
        ("context", pa.binary()),
        ("thumbnail", pa.binary()),
    ]
)

# Of the rows of a clip and a label set those of the last `tagged_at` count. One whose label is `label_sets.NONE` says
# that no label fits.
TAGS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("space", pa.string()),
        ("label_set", pa.string()),  # fingerprint of the labels and their texts
        ("label", pa.string()),
        ("rank", pa.int32()),
        ("probability", pa.float64()),  # of the kind that `basis` says; null where there is none
        ("score", pa.float64()),  # the model's logit
        ("tagged_at", _TIME),
        ("basis", pa.string()),  # softmax | sigmoid, calibrated | uncalibrated
        ("tagging", pa.string()),  # fingerprint of all that decides these rows: label set, mode, calibration, count
    ]
)

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("state", pa.string()),  # started | finished | stopped (by a signal) | rolled_back
        ("space", pa.string()),
        ("at", _TIME),
        ("settings", pa.string()),  # JSON
        ("versions", pa.string()),  # JSON: footage and the libraries that decide numbers
        ("report", pa.string()),  # JSON, null until finished
    ]
)

# The dead-letter. Append-only: the current row of a (space, uri, start_s) is the one with the latest `last_seen`.
FAILURES = pa.schema(
    [
        ("space", pa.string()),
        ("uri", pa.string()),
        ("fingerprint", pa.string()),  # of the content it failed on; empty where the file was not read to its end
        ("size_bytes", pa.int64()),
        ("mtime_s", pa.float64()),
        ("unit_id", pa.string()),  # null, as the next two: the file as a whole
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("stage", pa.string()),
        ("error_kind", pa.string()),
        ("error", pa.string()),
        ("permanent", pa.bool_()),
        ("attempts", pa.int32()),
        ("first_seen", _TIME),
        ("last_seen", _TIME),
        ("run_id", pa.string()),
        ("decoder", pa.string()),  # versions of the libraries that decode
        ("state", pa.string()),  # open | retry (asked for, not tried yet) | settled
    ]
)

# What demuxing tells, by content: a cache, from which another space is planned without opening files. Append-only: of
# rows of one fingerprint the last kept counts. Those of another format or of other libraries are passed over.
PACKETS = pa.schema(
    [
        ("fingerprint", pa.string()),
        ("format", pa.int32()),  # of `packets`, see pipeline/packing.py
        ("decoder", pa.string()),  # versions of the libraries that demuxed
        ("kept_at", _TIME),
        ("codec", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("rotation", pa.int32()),
        ("tick_s", pa.float64()),  # a time is ticks times this
        ("zero_s", pa.float64()),  # less this
        ("end_s", pa.float64()),
        ("is_plannable", pa.bool_()),
        ("packet_count", pa.int64()),
        ("packets", pa.binary()),  # times, sizes and flags of each
    ]
)

TABLES = {"videos": VIDEOS, "clips": CLIPS, "tags": TAGS, "runs": RUNS, "failures": FAILURES, "packets": PACKETS}
PARTITIONS = {"clips": ["space"]}
