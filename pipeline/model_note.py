"""The note that lies beside a fine-tuned model: what it is, what it was made from, and how well it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.finetune import FinetuneReport
    from pipeline.fitting import Run

TEMPLATE = """\
# A fine-tuned X-CLIP

Made by `footage finetune` from `{init}` (weights {weights:.12}...), protocol `{protocol}`, seed {seed}.
Use this folder as a model: `footage index VIDEOS ARCHIVE --model {folder}`.

| what | value |
| --- | --- |
| labels | {labels} |
| training examples | {examples} |
| epochs, steps | {epochs}, {steps} |
| batch, learning rate | {batch}, {lr:g} (new parts {new_lr:g}) |
| mirrored at random | {flip} |
| precision | {precision} |
| videos left out | {unread} |
| held-out examples | {held_out} |
| held-out top-1, top-5 | {accuracy} |

`model.safetensors` is {kept}, `last.safetensors` the one after the last step. Labels, in the model's words:

{names}

The text tower and the temperature are those of the model it was made from. Accuracies are of single views of videos
that were not trained on, by which the epoch was chosen; they are no test results.
"""


def model_note(run: Run, identity: dict[str, Any], report: FinetuneReport) -> str:
    """The note as Markdown."""
    measured = report.top1 is not None and report.top5 is not None
    return TEMPLATE.format(
        init=run.settings.init,
        weights=identity["weights"],
        protocol=run.settings.protocol,
        seed=run.settings.seed,
        folder=run.folder,
        labels=report.labels,
        examples=report.examples,
        epochs=report.epochs,
        steps=report.steps,
        batch=run.schedule.batch,
        lr=run.schedule.lr,
        new_lr=10 * run.schedule.lr,
        flip="yes" if run.flip else "no",
        precision="bfloat16, scores in float32" if run.bf16 else "float32",
        unread=len(report.unread),
        held_out=report.held_out,
        accuracy=f"{report.top1:.3f}, {report.top5:.3f}" if measured else "not measured",
        kept=f"the model after epoch {report.best_epoch}" if measured else "the last one",
        names="\n".join(f"- {name}" for name in run.labels),
    )
