"""The parity check notices every mistake that X-CLIP ports make (spec §9): each one, put in, makes it fail.

A mutation changes a copy of our model by putting other modules in its place. Controls put in modules that are
written differently and compute the same, so a mutation is caught for what it computes and not for being foreign.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import TINY, random_frames
from tests.xclip_core.reference import FLOAT64_TOLERANCE, assert_parity, hf_outputs, outputs
from xclip_core import XClip, encode_video_with_context
from xclip_core.blocks import QuickGELU
from xclip_core.frames import CrossFrameBlock
from xclip_core.prompts import PromptBlock, PromptGenerator
from xclip_core.temporal import MultiFrameIntegration
from xclip_core.text import TextEncoder

Mutation = Callable[[XClip], object]

with torch.device("meta"):
    MODULES = dict(XClip(TINY).named_modules())
BLOCKS = [name for name, module in MODULES.items() if isinstance(module, CrossFrameBlock)]
PACKED = [name for name in MODULES if hasattr(MODULES[name], "in_proj_weight")]
CROSS = [name for name in MODULES if name.endswith("cross_attn")]


def becomes(path: str, kind: type[nn.Module]) -> Mutation:
    """The module keeps its weights and computes as `kind` does."""
    return lambda model: setattr(model.get_submodule(path), "__class__", kind)


def replaced(path: str, make: Callable[[nn.Module], nn.Module]) -> Mutation:
    """The module gives way to one made from it."""
    return lambda model: model.set_submodule(path, make(model.get_submodule(path)))


def in_every_block(name: str, make: Callable[[nn.Module], nn.Module]) -> Mutation:
    """`replaced` for one part of every layer of the vision tower."""
    return lambda model: [replaced(f"{block}.{name}", make)(model) for block in BLOCKS]


class Split(nn.Module):
    """Attention with a given number of heads, from either of our two kinds."""

    def __init__(self, attention: nn.Module, heads: int) -> None:
        super().__init__()
        self.attention, self.heads = attention, heads

    def forward(self, query: Tensor, source: Tensor, *, causal: bool = False) -> Tensor:
        own = self.attention
        if hasattr(own, "in_proj_weight"):
            parts = zip(own.in_proj_weight.chunk(3), own.in_proj_bias.chunk(3), strict=True)
            out = own.out_proj
        else:
            parts = [(linear.weight, None) for linear in (own.q_proj, own.k_proj, own.v_proj)]
            out = own.proj
        given = zip((query, source, source), parts, strict=True)
        q, k, v = (F.linear(x, *part).unflatten(-1, (self.heads, -1)).transpose(-3, -2) for x, part in given)
        mask = torch.full((q.shape[-2], k.shape[-2]), -torch.inf).triu(1).double() if causal else 0.0
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 + mask).softmax(dim=-1)
        return out((weights @ v).transpose(-3, -2).flatten(-2))


def heads(path: str, factor: float) -> Mutation:
    """The number of heads times `factor`."""
    width = MODULES[f"{path}.{'proj' if path in CROSS else 'out_proj'}"].in_features
    return replaced(path, lambda attention: Split(attention, int(width // 64 * factor)))


def reordered(path: str, order: tuple[int, int, int]) -> Mutation:
    """Packed rows taken for another order than query, key, value."""

    def mutate(model: XClip) -> None:
        attention = model.get_submodule(path)
        for name in ("in_proj_weight", "in_proj_bias"):
            parts = getattr(attention, name).chunk(3)
            setattr(attention, name, nn.Parameter(torch.cat([parts[i] for i in order])))

    return mutate


class Nothing(nn.Module):
    def forward(self, query: Tensor, source: Tensor) -> Tensor:
        return torch.zeros_like(query)


class MitWithoutOuterResidual(MultiFrameIntegration):
    def forward(self, frame_BTE: Tensor) -> Tensor:
        return self.resblocks(frame_BTE + self.positional_embedding).mean(dim=1)


class MitWithPositionInResidual(MultiFrameIntegration):
    def forward(self, frame_BTE: Tensor) -> Tensor:
        x = frame_BTE + self.positional_embedding
        return (self.resblocks(x) + x).mean(dim=1)


class MitWithoutPosition(MultiFrameIntegration):
    def forward(self, frame_BTE: Tensor) -> Tensor:
        return (self.resblocks(frame_BTE) + frame_BTE).mean(dim=1)


class PromptWithoutAttentionResidual(PromptBlock):
    def forward(self, text_BKE: Tensor, context_BNE: Tensor) -> Tensor:
        text_BKE = self.cross_attn(self.norm1(text_BKE), context_BNE)
        return text_BKE + self.mlp(self.norm3(text_BKE))


class PromptWithoutMlpResidual(PromptBlock):
    def forward(self, text_BKE: Tensor, context_BNE: Tensor) -> Tensor:
        text_BKE = text_BKE + self.cross_attn(self.norm1(text_BKE), context_BNE)
        return self.mlp(self.norm3(text_BKE))


class PromptDropped(PromptGenerator):
    def forward(self, text_KE: Tensor, context_BNE: Tensor) -> Tensor:
        return text_KE.expand(len(context_BNE), -1, -1)


class PromptWithoutText(PromptGenerator):
    def forward(self, text_KE: Tensor, context_BNE: Tensor) -> Tensor:
        return super().forward(text_KE, context_BNE) - text_KE


class PromptOfUnitText(PromptGenerator):
    def forward(self, text_KE: Tensor, context_BNE: Tensor) -> Tensor:
        return super().forward(F.normalize(text_KE, dim=-1), context_BNE)


class MeanBeforeNorm(XClip):
    def video(self, pixels_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        frame_BTE, patch_BTND = self.visual(pixels_BTCHW)
        return self.mit(frame_BTE), self.prompts_visual_ln(patch_BTND.mean(dim=1)) @ self.prompts_visual_proj


class MeanAfterProjection(XClip):
    """As the reference orders it, T times dearer than ours and equal."""

    def video(self, pixels_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        frame_BTE, patch_BTND = self.visual(pixels_BTCHW)
        return self.mit(frame_BTE), (self.prompts_visual_ln(patch_BTND) @ self.prompts_visual_proj).mean(dim=1)


class FrameHeadForPatches(XClip):
    def video(self, pixels_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        frame_BTE, patch_BTND = self.visual(pixels_BTCHW)
        return self.mit(frame_BTE), (self.visual.ln_post(patch_BTND) @ self.visual.proj).mean(dim=1)


class FrameHeadBeforePatches(XClip):
    def video(self, pixels_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        frame_BTE, patch_BTND = self.visual(pixels_BTCHW)
        normed_BTND = self.prompts_visual_ln(self.visual.ln_post(patch_BTND))
        return self.mit(frame_BTE), normed_BTND.mean(dim=1) @ self.prompts_visual_proj


class ScaleNotALog(XClip):
    def score(self, video_BE: Tensor, context_BNE: Tensor, text_KE: Tensor) -> Tensor:
        return super().score(video_BE, context_BNE, text_KE) / self.logit_scale.exp() * self.logit_scale


class MessageOfNormedToken(CrossFrameBlock):
    def forward(self, x_BTLD: Tensor) -> Tensor:
        fc = self.message_fc
        self.message_fc = nn.Sequential(self.ln_1, fc)
        out = super().forward(x_BTLD)
        self.message_fc = fc
        return out


class MessageQueried(CrossFrameBlock):
    """As the reference computes it: the message is a query too, and its row is dropped afterwards."""

    def forward(self, x_BTLD: Tensor) -> Tensor:
        message_BTD = self.message_fc(x_BTLD[:, :, 0])
        normed_BTD = self.message_ln(message_BTD)
        message_BTD = message_BTD + self.message_attn(normed_BTD, normed_BTD)
        x = torch.cat([x_BTLD, message_BTD.unsqueeze(2)], dim=2)
        x = x + self.attn(self.ln_1(x), self.ln_1(x))
        return x[:, :, :-1] + self.mlp(self.ln_2(x[:, :, :-1]))


class PooledAtTheLastToken(TextEncoder):
    def forward(self, token_ids_KL: Tensor) -> Tensor:
        x_KLW = self.token_embedding(token_ids_KL) + self.positional_embedding
        return self.ln_final(self.transformer(x_KLW))[:, -1] @ self.text_projection


class NotCausal(type(MODULES["text_encoder.transformer.resblocks.0"])):
    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed)
        return x + self.mlp(self.ln_2(x))


def exchanged(block: CrossFrameBlock) -> None:
    """The two attentions of a layer, taken for each other."""
    block.attn, block.message_attn = block.message_attn, block.attn


# Before the first layer the class token is the same in every frame, so all messages are equal and it does not
# matter which attends to which: mistakes about heads and queries cannot show there, in any implementation.
FIRST_EXCHANGE = f"{BLOCKS[0]}.message_attn"

MIT, PROMPT = "mit.resblocks.0", "prompts_generator.decoder.0"
TEXT, FRAME = "text_encoder.transformer.resblocks.0", BLOCKS[0]

MUTATIONS: dict[str, Mutation] = {
    **{f"GELU at {path}": replaced(path, lambda _: nn.GELU()) for path in MODULES if type(MODULES[path]) is QuickGELU},
    **{
        f"epsilon 1e-6 at {path}": lambda model, path=path: setattr(model.get_submodule(path), "eps", 1e-6)
        for path in MODULES
        if isinstance(MODULES[path], nn.LayerNorm)
    },
    **{f"twice the heads at {path}": heads(path, 2) for path in PACKED + CROSS if path != FIRST_EXCHANGE},
    **{f"keys and queries swapped at {path}": reordered(path, (1, 0, 2)) for path in PACKED if path != FIRST_EXCHANGE},
    **{f"values first at {path}": reordered(path, (2, 0, 1)) for path in PACKED},
    "one head in MIT": heads(f"{MIT}.attn", 0.5),
    "one head in the prompt": heads(f"{PROMPT}.cross_attn", 0.5),
    "MIT outer residual lost": becomes("mit", MitWithoutOuterResidual),
    "MIT outer residual with position": becomes("mit", MitWithPositionInResidual),
    "MIT position lost": becomes("mit", MitWithoutPosition),
    "prompt attention residual lost": becomes(PROMPT, PromptWithoutAttentionResidual),
    "prompt MLP residual lost": becomes(PROMPT, PromptWithoutMlpResidual),
    "prompt dropped": becomes("prompts_generator", PromptDropped),
    "prompt without the text": becomes("prompts_generator", PromptWithoutText),
    "prompt of a unit text": becomes("prompts_generator", PromptOfUnitText),
    "prompt norm skipped": replaced("prompts_generator.norm", lambda _: nn.Identity()),
    "mean over time before the norm": becomes("", MeanBeforeNorm),
    "ln_post and proj used for patches": becomes("", FrameHeadForPatches),
    "ln_post before prompts_visual_ln": becomes("", FrameHeadBeforePatches),
    "cross-frame attention omitted": in_every_block("message_attn", lambda _: Nothing()),
    "message_fc skipped": in_every_block("message_fc", lambda _: nn.Identity()),
    "message_ln skipped": in_every_block("message_ln", lambda _: nn.Identity()),
    "message made of the normed token": becomes(FRAME, MessageOfNormedToken),
    "message_attn and attn exchanged": lambda model: [exchanged(model.get_submodule(block)) for block in BLOCKS],
    "text pooled at the last token": becomes("text_encoder", PooledAtTheLastToken),
    "text attention not causal": becomes(TEXT, NotCausal),
    "logit scale not a logarithm": becomes("", ScaleNotALog),
}


CONTROLS: dict[str, Mutation] = {
    "unchanged": lambda _model: None,
    **{f"the same heads at {path}": heads(path, 1) for path in PACKED + CROSS},
    **{f"the same order at {path}": reordered(path, (0, 1, 2)) for path in PACKED},
    "twice the heads where all messages are equal": heads(FIRST_EXCHANGE, 2),
    "keys and queries swapped where all messages are equal": reordered(FIRST_EXCHANGE, (1, 0, 2)),
    "mean over time after the projection": becomes("", MeanAfterProjection),
    "message row computed and dropped": lambda model: [becomes(block, MessageQueried)(model) for block in BLOCKS],
}


def mutated(model: XClip, mutation: Mutation) -> XClip:
    changed = copy.deepcopy(model)
    mutation(changed)
    return changed


@pytest.mark.parametrize("name", CONTROLS)
def test_parity_holds_for_what_is_equal(name, tiny_float64, tiny_reference):
    model = mutated(tiny_float64, CONTROLS[name])
    assert_parity(outputs(model, tiny_reference.pixels, tiny_reference.token_ids), tiny_reference.expected)


@pytest.mark.parametrize("name", MUTATIONS)
def test_parity_fails_for(name, tiny_float64, tiny_reference):
    model = mutated(tiny_float64, MUTATIONS[name])
    got = outputs(model, tiny_reference.pixels, tiny_reference.token_ids)
    with pytest.raises(AssertionError, match=r"differs by"):
        assert_parity(got, tiny_reference.expected)
    # The logits alone tell, with room to spare (the least, epsilon in one prompt norm, moves them by 1e-7).
    assert (got["logits"] - tiny_reference.expected["logits"]).abs().max() > 10 * FLOAT64_TOLERANCE


# From here on mistakes about pixels, which `encode_video` makes from frames.

IMAGENET = (torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375]))
CLIP = (
    255 * torch.tensor([0.48145466, 0.4578275, 0.40821073]),
    255 * torch.tensor([0.26862954, 0.26130258, 0.27577711]),
)
HALF = (torch.full((3,), 127.5), torch.full((3,), 127.5))


class Renormalised(nn.Module):
    """The first convolution of a model whose pixels were normalised with other constants than ImageNet's."""

    def __init__(self, conv1: nn.Module, constants: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.conv1 = conv1
        self.constants = [x.double()[:, None, None] for x in (*IMAGENET, *constants)]

    def forward(self, pixels: Tensor) -> Tensor:
        mean, std, other_mean, other_std = self.constants
        return self.conv1((pixels * std + mean - other_mean) / other_std)


class Backwards(nn.Module):
    """The vision tower of a model that is given its frames from last to first."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        return self.visual(pixels_BTCHW.flip(1))


class Bgr(nn.Module):
    """The first convolution of a model that is given blue for red."""

    def __init__(self, conv1: nn.Module) -> None:
        super().__init__()
        self.conv1 = conv1

    def forward(self, pixels: Tensor) -> Tensor:
        return self.conv1(pixels.flip(1))


PIXEL_MUTATIONS: dict[str, Mutation] = {
    "CLIP's mean and deviation": replaced("visual.conv1", lambda conv1: Renormalised(conv1, CLIP)),
    "0.5 as mean and deviation": replaced("visual.conv1", lambda conv1: Renormalised(conv1, HALF)),
    "blue for red": replaced("visual.conv1", Bgr),
    "frames reversed": replaced("visual", Backwards),
}
PIXEL_CONTROLS: dict[str, Mutation] = {
    "unchanged": lambda _model: None,
    "ImageNet's mean and deviation": replaced("visual.conv1", lambda conv1: Renormalised(conv1, IMAGENET)),
}


@pytest.fixture(scope="module")
def expected_of_frames(tiny_reference):
    """What the reference makes of frames that the specification's formula normalised, in float64."""
    mean, std = IMAGENET
    pixels = ((random_frames().double() - mean) / std).movedim(-1, 2)
    expected = hf_outputs(tiny_reference.hf, pixels, tiny_reference.token_ids)
    return {"video": F.normalize(expected["video"], dim=-1), "context": expected["context"]}


def encoded(model: XClip) -> dict[str, Tensor]:
    video, context = encode_video_with_context(model, random_frames())
    return {"video": video, "context": context}


@pytest.mark.parametrize("name", PIXEL_CONTROLS)
def test_parity_from_frames_holds_for(name, tiny_float64, expected_of_frames):
    assert_parity(encoded(mutated(tiny_float64, PIXEL_CONTROLS[name])), expected_of_frames)


@pytest.mark.parametrize("name", PIXEL_MUTATIONS)
def test_parity_from_frames_fails_for(name, tiny_float64, expected_of_frames):
    got = encoded(mutated(tiny_float64, PIXEL_MUTATIONS[name]))
    with pytest.raises(AssertionError, match=r"video differs by"):
        assert_parity(got, expected_of_frames)
