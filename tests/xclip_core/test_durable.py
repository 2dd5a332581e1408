"""A training in progress: it goes on to the bit, averages what it accumulates, and is saved whole or not at all."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from schemas.errors import InputError
from tests.models import TINY, random_inputs, random_state
from xclip_core import XClip, load
from xclip_core.checkpoint import save_model
from xclip_core.durable import load_state, save_state, write_text, write_whole
from xclip_core.mixing import smooth_targets
from xclip_core.objective import Classifier, label_texts
from xclip_core.training import MAX_LOGIT_SCALE, Training, TrainSettings
from xclip_core.weights import module_name

SETTINGS = TrainSettings(steps=6, lr=1e-3, warmup_steps=2, clip_norm=None)
CLASSES = 4
Clips = tuple[Tensor, Tensor]


def new_model() -> XClip:
    model = XClip(TINY)
    model.load_state_dict({module_name(name): tensor for name, tensor in random_state().items()})
    return model.requires_grad_(requires_grad=False)


def new_classifier(*, bf16: bool = False) -> Classifier:
    model = new_model()
    return Classifier(model, label_texts(model, random_inputs(texts=CLASSES)[1]), bf16=bf16)


def clips(count: int = 4) -> Clips:
    pixels = random_inputs(clips=count)[0].float()
    return pixels, smooth_targets(torch.arange(count) % CLASSES, CLASSES)


def batches(size: int = 2) -> Iterator[Clips]:
    """Two different batches, over and over."""
    pixels, targets = clips(2 * size)
    return cycle([(pixels[:size], targets[:size]), (pixels[size:], targets[size:])])


def run(training: Training, classifier: Classifier, source: Iterator[Clips], steps: int) -> list[float]:
    return [training.update(source, classifier) for _ in range(steps)]


def same(one: XClip, two: XClip) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_training_that_was_saved_and_loaded_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole = new_classifier()
    losses = run(Training(whole.model, SETTINGS), whole, batches(), 6)

    first = new_classifier()
    begun = Training(first.model, SETTINGS)
    before = run(begun, first, batches(), 3)
    save_state(tmp_path / "state.pt", begun.state_dict())
    second = new_classifier()
    resumed = Training(second.model, SETTINGS)
    resumed.load_state_dict(load_state(tmp_path / "state.pt"))
    after = run(resumed, second, islice(batches(), 3, None), 3)

    assert before + after == losses
    assert same(whole.model, second.model)
    assert len(set(losses)) == 6


def test_what_a_resumed_training_forgets_would_show() -> None:
    """The same without the optimiser's memory: other weights, so the test above can fail."""
    whole, other = new_classifier(), new_classifier()
    begun = Training(whole.model, SETTINGS)
    run(begun, whole, batches(), 3)
    forgetful = Training(other.model, SETTINGS)
    forgetful.load_state_dict(copy.deepcopy(begun.state_dict() | {"optimiser": forgetful.optimiser.state_dict()}))
    run(begun, whole, islice(batches(), 3, None), 1)
    run(forgetful, other, islice(batches(), 3, None), 1)
    assert not same(whole.model, other.model)


def test_accumulated_batches_are_one_large_batch() -> None:
    one, many = new_classifier(), new_classifier()
    loss = Training(one.model, replace(SETTINGS, warmup_steps=0)).update(iter([clips(4)]), one)
    parts = Training(many.model, replace(SETTINGS, warmup_steps=0, accumulate=2)).update(batches(2), many)
    assert parts == pytest.approx(loss, rel=1e-5)
    pairs = zip(one.model.named_parameters(), many.model.parameters(), strict=True)
    for (name, a), b in pairs:
        if a.grad is not None:
            assert torch.allclose(a.grad, b.grad, atol=1e-6 + 1e-4 * a.grad.abs().max().item()), name


def test_recomputed_layers_give_the_same_gradients_to_the_bit() -> None:
    plain, frugal = new_classifier(), new_classifier()
    frugal.model.visual.transformer.recompute = True
    for classifier in (plain, frugal):
        Training(classifier.model, SETTINGS)  # says what is trained
        classifier(clips()).backward()
    grads = [(p.grad, q.grad) for p, q in zip(plain.parameters(), frugal.parameters(), strict=True)]
    assert sum(a is not None for a, _ in grads) > 40
    assert all(torch.equal(a, b) for a, b in grads if a is not None)


def test_a_temperature_that_is_frozen_is_not_bounded_either() -> None:
    """CLIP's own is a little over ln 100."""
    classifier = new_classifier()
    classifier.model.logit_scale.data.fill_(MAX_LOGIT_SCALE + 0.1)
    Training(classifier.model, SETTINGS).update(batches(), classifier)
    assert classifier.model.logit_scale.item() == pytest.approx(MAX_LOGIT_SCALE + 0.1)


def test_text_and_temperature_stay_and_the_rest_learns() -> None:
    classifier, before = new_classifier(), new_model().state_dict()
    run(Training(classifier.model, SETTINGS), classifier, batches(), 2)
    changed = {name for name, x in classifier.model.state_dict().items() if not torch.equal(x, before[name])}
    frozen = {name for name in before if name.startswith("text_encoder.") or name == "logit_scale"}
    assert changed == before.keys() - frozen


def test_the_loss_is_the_cross_entropy_against_soft_targets() -> None:
    classifier, (pixels, targets) = new_classifier(), clips(3)
    log_p = classifier.logits(pixels).log_softmax(dim=-1)
    assert classifier((pixels, targets)).item() == pytest.approx(-(targets * log_p).sum().item() / 3, rel=1e-5)
    assert classifier((pixels, torch.zeros_like(targets))) == 0


def test_half_precision_moves_the_video_side_a_little_and_leaves_scores_in_full() -> None:
    full, half = new_classifier(), new_classifier(bf16=True)
    a, b = full.logits(clips()[0]), half.logits(clips()[0])
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert (a - b).abs().max() < 0.05 * math.exp(full.model.logit_scale)


def test_a_saved_model_loads_as_it_was(tmp_path: Path) -> None:
    save_model(model := new_model(), tmp_path / "model.safetensors")
    assert same(load(tmp_path / "model.safetensors"), model)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "card.md", "old")

    def half_done(part: Path) -> None:
        part.write_text("ne")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "card.md", half_done)
    assert (tmp_path / "card.md").read_text() == "old"


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"checkpoint\.pt cannot be read .* remove it to start from step 0"):
        load_state(tmp_path / "checkpoint.pt")
