"""How far the probabilities of a label set can be believed in a space: fitted on clips whose labels are known, and
measured on videos that nothing was fitted on.
"""

# B clips, K labels

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline import tagging
from pipeline.calibration_file import Calibration, Fitted
from pipeline.calibration_fit import (
    CLIP,
    CalibrateSettings,
    LabelledScores,
    Truths,
    fit_multi,
    fit_single,
    own,
    require,
    shares,
    single_truth,
)
from pipeline.label_scores import THRESHOLD, Rule, Scores, margins, sigmoid
from pipeline.label_sets import LabelSet
from pipeline.labelled_clips import Labelled, labels_of_clip
from pipeline.reliability import Bins, bins_of
from pipeline.serving import OpenSpace
from pipeline.settings import Precision
from pipeline.tagging import TagSettings
from schemas.errors import InputError

MIN_CLIPS = 4  # of either half: fewer say nothing at all


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """How good probabilities are: all three are better when lower."""

    calibration_error: float  # expected, over bins of equal width
    brier: float
    log_loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelLine:
    """A label at its threshold, on the clips that were held out. None where there is nothing to divide by."""

    label: str
    threshold: float
    clips: int  # that have it
    precision: float | None
    recall: float | None
    was_fitted: bool  # False: no clip that has it was there to choose a threshold by


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeReport:
    """What was measured of one mode, on the clips held out."""

    before: Quality
    after: Quality
    bins_before: Bins
    bins_after: Bins


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationReport:
    """What was fitted and how good it is."""

    calibration: Calibration
    fitted_clips: int
    held_out_clips: int
    videos: int
    multi: ModeReport
    single: ModeReport | None  # None where clips have several labels
    labels: tuple[LabelLine, ...]
    notes: tuple[str, ...]  # where it does no good
    answered: float | None  # share of the held-out clips that single-label mode gives a label
    accuracy: float | None  # of those answers


def calibrate(
    opened: OpenSpace,
    labels: LabelSet,
    labelled: Labelled,
    settings: CalibrateSettings,
    *,
    precision: Precision = "float32",
) -> CalibrationReport:
    """Fits a calibration of a label set for the space that is open.

    Raises InputError when too few of the labelled clips are in the archive, or the scores say nothing of the labels.
    """
    require()
    asked, _ = tagging.prepared(labels, TagSettings(background=True), opened.space)
    found = scores_of(opened, asked, labelled, precision)
    fit, held = split(found, settings)
    multi = fit_multi(fit, asked, settings)
    is_single = bool((found.truth_BK[:, own(asked)].sum(axis=1) <= 1).all())
    single = fit_single(fit, asked, settings) if is_single else None
    reports = {"multi": multi_report(held, multi), "single": single_report(held, asked, single) if single else None}
    lines = _label_lines(fit, held, asked, multi)
    answered, accuracy = _answers(held, asked, single) if single else (None, None)
    measured: dict[str, Any] = {name: asdict(report) if report else None for name, report in reports.items()}
    measured |= {
        "labels": [asdict(line) for line in lines],
        "answered": answered,
        "accuracy": accuracy,
        "fitted_clips": len(fit),
        "held_out_clips": len(held),
        "settings": asdict(settings),
    }
    calibration = Calibration(
        label_set=labels.id,
        space=opened.space,
        background=asked.background,
        single=single,
        multi=multi,
        measured=measured,
    )
    return CalibrationReport(
        calibration=calibration,
        fitted_clips=len(fit),
        held_out_clips=len(held),
        videos=len(np.unique(found.video_B)),
        multi=multi_report(held, multi),
        single=reports["single"],
        labels=lines,
        notes=tuple(_notes(reports)),
        answered=answered,
        accuracy=accuracy,
    )


def _notes(reports: Mapping[str, ModeReport | None]) -> Iterator[str]:
    """A sentence for each mode whose probabilities are no better for it."""
    for mode, report in reports.items():
        if report is not None and report.after.log_loss > report.before.log_loss:
            yield (
                f"on the clips held out the probabilities of {mode} mode are further off than without a calibration "
                f"(log loss {report.after.log_loss:.3f}, and {report.before.log_loss:.3f} before); label more clips"
            )


def bins_by_mode(report: CalibrationReport) -> dict[str, tuple[Bins, Bins]]:
    """Reliability before and after, by mode, as a diagram shows it."""
    found = {"multi": report.multi, "single": report.single}
    return {name: (mode.bins_before, mode.bins_after) for name, mode in found.items() if mode is not None}


# --- scores of labelled clips


def scores_of(opened: OpenSpace, labels: LabelSet, labelled: Labelled, precision: Precision) -> LabelledScores:
    """The scores of all clips whose labels are known."""
    uris = {video_id: uri for video_id, uri in opened.archive.uris(opened.space).items() if uri in labelled}
    if missing := sorted(set(labelled) - set(uris.values())):
        raise InputError(
            f"{len(missing)} of the {len(labelled)} labelled videos are not in the archive, such as {missing[0]}; "
            "index them first, or take them out of the list"
        )
    number = {video_id: place for place, video_id in enumerate(sorted(uris))}
    place_of = {name: place for place, name in enumerate(labels.names)}
    score = tagging.text_scorer(opened, labels, precision)
    scores, nones, truths, videos = [], [], [], []
    columns = ["clip_id", "video_id", "start_s", "end_s", "embedding", "context"]
    for batch in opened.archive.visible_batches(opened.space, columns):
        said = [
            labels_of_clip(labelled[uris[video_id]], start_s, end_s) if video_id in uris else None
            for video_id, start_s, end_s in zip(*(batch[n].to_pylist() for n in columns[1:4]), strict=True)
        ]
        known = [place for place, each in enumerate(said) if each is not None]
        if not known:
            continue
        score_BK, none_B = tagging.label_scores(opened, batch.take(known), score, labels)
        assert none_B is not None, "a calibration has a background"
        scores.append(score_BK)
        nones.append(none_B)
        truths.append(np.array([_truth(said[place] or frozenset(), place_of, labels) for place in known]))
        videos += [number[video_id] for video_id in batch.take(known)["video_id"].to_pylist()]
    if not scores:
        raise InputError("no clip of the archive is covered by a labelled stretch; look at start_s and end_s")
    found = LabelledScores(np.concatenate(scores), np.concatenate(nones), np.concatenate(truths), np.array(videos))
    # The archive has its clips in no order: by video and score they are in one, and the same split is made again.
    return found.at(np.lexsort((found.none_B, found.video_B)))


def _truth(said: frozenset[str], place_of: Mapping[str, int], labels: LabelSet) -> Truths:
    """Which labels hold (K,): those that are said, and those above them."""
    parent = {label.name: label.parent for label in labels.labels}
    holds = np.zeros(len(place_of), np.bool_)
    for name in said:
        above: str | None = name
        while above is not None:
            holds[place_of[above]] = True
            above = parent[above]
    return holds


def split(found: LabelledScores, settings: CalibrateSettings) -> tuple[LabelledScores, LabelledScores]:
    """Clips to fit on and clips to measure on; the clips of one video are on one side."""
    videos = np.unique(found.video_B)
    count = round(settings.holdout * len(videos))
    held = np.random.default_rng(settings.seed).permutation(videos)[: max(1, min(count, len(videos) - 1))]
    is_held = np.isin(found.video_B, held)
    parts = found.at(~is_held), found.at(is_held)
    if len(videos) < 2 or min(map(len, parts)) < MIN_CLIPS:
        raise InputError(
            f"{len(found)} labelled clips of {len(videos)} videos are too few: expected at least {MIN_CLIPS} clips on "
            "either side, of different videos"
        )
    return parts


# --- measuring


def quality(share: Scores, truth: Truths) -> Quality:
    """The figures of probabilities of any shape that something holds."""
    share, truth = share.ravel(), truth.ravel()
    clipped = np.clip(share, CLIP, 1 - CLIP)
    return Quality(
        calibration_error=bins_of(share, truth).calibration_error,
        brier=float(((share - truth) ** 2).mean()),
        log_loss=float(-np.where(truth, np.log(clipped), np.log1p(-clipped)).mean()),
    )


def multi_report(held: LabelledScores, fitted: Fitted) -> ModeReport:
    """Every label of every clip, before and after."""
    margin_BK = margins(held.score_BK, held.none_B)
    return _report(sigmoid(margin_BK), sigmoid(margin_BK / fitted.temperature + fitted.bias), held.truth_BK)


def single_report(held: LabelledScores, labels: LabelSet, fitted: Fitted) -> ModeReport:
    """The best answer of every clip, none among them, before and after: how sure, and whether right."""
    truth_B = single_truth(held, labels)
    after = Rule(temperature=fitted.temperature, bias=fitted.bias, is_calibrated=True)
    found = [shares(held, labels, rule) for rule in (Rule(), after)]
    reports = [(share.max(axis=1), share.argmax(axis=1) == truth_B) for share in found]
    (share_before, right_before), (share_after, right_after) = reports
    return ModeReport(
        before=quality(share_before, right_before),
        after=quality(share_after, right_after),
        bins_before=bins_of(share_before, right_before),
        bins_after=bins_of(share_after, right_after),
    )


def _report(before: Scores, after: Scores, truth: Truths) -> ModeReport:
    """Two lots of probabilities of the same things."""
    return ModeReport(
        before=quality(before, truth),
        after=quality(after, truth),
        bins_before=bins_of(before.ravel(), truth.ravel()),
        bins_after=bins_of(after.ravel(), truth.ravel()),
    )


def _label_lines(fit: LabelledScores, held: LabelledScores, labels: LabelSet, fitted: Fitted) -> tuple[LabelLine, ...]:
    """Precision and recall of each label at its threshold."""
    share_BK = sigmoid(margins(held.score_BK, held.none_B) / fitted.temperature + fitted.bias)
    lines = []
    for place, label in enumerate(labels.labels):
        stated = THRESHOLD if label.threshold is None else label.threshold
        at = fitted.thresholds.get(label.name, stated)
        given_B, truth_B = share_BK[:, place] >= at, held.truth_BK[:, place]
        right = int((given_B & truth_B).sum())
        lines.append(
            LabelLine(
                label=label.name,
                threshold=at,
                clips=int(truth_B.sum()),
                precision=right / int(given_B.sum()) if given_B.any() else None,
                recall=right / int(truth_B.sum()) if truth_B.any() else None,
                was_fitted=bool(fit.truth_BK[:, place].any()),
            )
        )
    return tuple(lines)


def _answers(held: LabelledScores, labels: LabelSet, fitted: Fitted) -> tuple[float, float | None]:
    """The share of clips that get a label, and how many of those labels are right."""
    rule = Rule(temperature=fitted.temperature, bias=fitted.bias, is_calibrated=True)
    share_BK, truth_B = shares(held, labels, rule), single_truth(held, labels)
    best_B, place_B = share_BK[:, :-1].max(axis=1), share_BK[:, :-1].argmax(axis=1)
    answers_B = (best_B >= fitted.abstain_below) & (best_B >= share_BK[:, -1])
    right = float((place_B == truth_B)[answers_B].mean()) if answers_B.any() else None
    return float(answers_B.mean()), right
