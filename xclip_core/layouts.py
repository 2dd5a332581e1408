"""Names: how five kinds of checkpoint call the same tensors, and how they are told apart.

Canonical is the official layout (spec §8). X-CLIP comes as `official` or `hf`; CLIP, from which X-CLIP training
starts, as OpenAI's archive, open_clip's state dict or HuggingFace's CLIPModel. A layout is recognised from its keys.
"""

# E joint dimension, D and W widths of the towers

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from schemas.errors import WeightsError

Layout = Literal["official", "hf", "clip-openai", "clip-openclip", "clip-hf"]
State = dict[str, Tensor]

# Position buffers that old HuggingFace files carry; they hold 0, 1, 2, ... and no model reads them.
HF_DROPPED = re.compile(r"\.position_ids$")
# OpenAI keeps three sizes as tensors; the masks are attributes that a TorchScript archive does not tell from weights.
OPENAI_DROPPED = re.compile(r"^(input_resolution|context_length|vocab_size)$|(^|\.)attn_mask$")

# HuggingFace name to official name, tried in order; the first that matches applies, then the block names below.
HF_PREFIXES = (
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.", "ln_final."),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("text_projection.weight", "text_projection"),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.pre_layernorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("visual_projection.weight", "visual.proj"),
    ("mit.encoder.layers.", "mit.resblocks."),
    ("mit.position_embedding", "mit.positional_embedding"),
    ("prompts_generator.layernorm.", "prompts_generator.norm."),
    ("prompts_visual_layernorm.", "prompts_visual_ln."),
    ("prompts_visual_projection", "prompts_visual_proj"),
)
# CLIPModel spells one name in a way of its own.
HF_CLIP_PREFIXES = tuple((hf.replace("pre_layernorm", "pre_layrnorm"), official) for hf, official in HF_PREFIXES)
HF_BLOCKS = (
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.", ".attn."),
)
# Stored (E, width) by HuggingFace and (width, E) officially. `prompts_visual_projection` is the same in both.
HF_TRANSPOSED = ("text_projection", "visual.proj")
# Query, key and value are packed in that order. The prompt's cross-attention is packed in neither layout.
HF_UNPACKED = re.compile(r"^(?P<owner>.*\.(?:attn|message_attn))\.[qkv]_proj\.(?P<kind>weight|bias)$")
PACKED = re.compile(r"^(?P<owner>.*\.(?:attn|message_attn))\.in_proj_(?P<kind>weight|bias)$")

# What X-CLIP adds to CLIP, in official words: all of this is new when training starts from CLIP, and nothing else.
NEW = re.compile(r"^(mit\.|prompts_generator\.|prompts_visual_(ln|proj)|visual\.transformer\.resblocks\.\d+\.message_)")


def to_official(state: State) -> tuple[State, Layout]:
    """A state dict of any layout in official words, and which layout it was. CLIP's lack all that is `NEW`."""
    layout = recognise(state)
    return READERS[layout](state), layout


def recognise(state: State) -> Layout:
    """The layout of a state dict, by its keys. Raises WeightsError for weights of another model."""
    is_xclip = any(".message_fc." in name for name in state)
    if any(name.startswith("visual.layer1.") for name in state):
        raise WeightsError("these are weights of a ResNet CLIP; X-CLIP needs a vision transformer")
    if any(name.startswith("visual.trunk.") for name in state):
        raise WeightsError("these are weights of a CLIP with a timm vision tower; use it as openclip:ARCH=FILE")
    if any(name.startswith("vision_model.") for name in state):
        return "hf" if is_xclip else "clip-hf"
    if is_xclip:
        return "official"
    if "visual.conv1.weight" not in state:
        sample = listing(sorted(state)) or "none"
        raise WeightsError(
            f"these are not X-CLIP weights (no layer has a `message_fc`), nor CLIP weights to start from "
            f"(there is no `visual.conv1.weight`); keys found: {sample}"
        )
    return "clip-openai" if "input_resolution" in state else "clip-openclip"


def is_clip(layout: Layout) -> bool:
    """Whether a layout is CLIP's, so that X-CLIP's own parts have to be made."""
    return layout.startswith("clip-")


def renamed(state: State, rename: Callable[[str], str]) -> State:
    """A state dict under other names. Raises WeightsError where two names become one."""
    result: State = {}
    for name, tensor in state.items():
        if rename(name) in result:
            raise WeightsError(f"the checkpoint holds {rename(name)} twice, once as {name}")
        result[rename(name)] = tensor
    return result


def listing(names: list[str], limit: int = 12) -> str:
    """Names for a message, cut where they would fill the screen."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


# --- reading


def to_clip(state: State) -> State:
    """OpenAI's CLIP in official words: the same, without sizes and masks."""
    return {name: tensor for name, tensor in state.items() if not OPENAI_DROPPED.search(name)}


def _from_openclip(state: State) -> State:
    """open_clip's CLIP, or its CustomTextCLIP, whose text tower is named `text.`, to official."""
    return renamed(state, lambda name: name.removeprefix("text."))


def _from_hf(state: State) -> State:
    """HuggingFace's X-CLIP to official."""
    return _out_of_hf(state, HF_PREFIXES)


def _from_hf_clip(state: State) -> State:
    """HuggingFace's CLIP to official."""
    return _out_of_hf(state, HF_CLIP_PREFIXES)


READERS: dict[Layout, Callable[[State], State]] = {
    "official": dict,
    "hf": _from_hf,
    "clip-openai": to_clip,
    "clip-openclip": _from_openclip,
    "clip-hf": _from_hf_clip,
}


def _out_of_hf(state: State, prefixes: tuple[tuple[str, str], ...]) -> State:
    """HuggingFace words to official ones: renamed, packed and transposed."""
    kept = {name: tensor for name, tensor in state.items() if not HF_DROPPED.search(name)}
    return _transposed(_pack_attention(renamed(kept, lambda name: _reworded(name, prefixes, HF_BLOCKS))))


def _reworded(name: str, starts: tuple[tuple[str, str], ...], middles: tuple[tuple[str, str], ...]) -> str:
    """One key in other words: the first start that fits, then all middles. An unknown key stays as it is."""
    for start, replacement in starts:
        # A start that ends in a dot is a prefix, any other is a whole name.
        if name.startswith(start) if start.endswith(".") else name == start:
            name = replacement + name.removeprefix(start)
            break
    for middle, replacement in middles:
        name = name.replace(middle, replacement)
    return name


def _pack_attention(state: State) -> State:
    """Separate query, key and value tensors joined into `in_proj_*`, wherever one of them is found."""
    packed = dict(state)
    found = [match.group("owner", "kind") for name in state if (match := HF_UNPACKED.match(name))]
    for owner, kind in dict.fromkeys(found):
        names = [f"{owner}.{letter}_proj.{kind}" for letter in "qkv"]
        missing = [name for name in names if name not in packed]
        if missing:
            raise WeightsError(f"the checkpoint lacks {listing(missing)}")
        packed[f"{owner}.in_proj_{kind}"] = torch.cat([packed.pop(name) for name in names])
    return packed


def _transposed(state: State) -> State:
    """The two projections that HuggingFace keeps the other way round, turned; (E, width) to (width, E) and back."""
    return {name: tensor.T.contiguous() if name in HF_TRANSPOSED else tensor for name, tensor in state.items()}


# --- writing


def to_hf(official: State) -> State:
    """Official X-CLIP tensors in HuggingFace's layout; reading them again gives the same bits."""
    starts = tuple((ours, hf) for hf, ours in HF_PREFIXES)
    middles = tuple((ours, hf) for hf, ours in HF_BLOCKS)
    apart = _unpack_attention(_transposed(official))
    return renamed(apart, lambda name: _reworded(name, starts, middles))


def _unpack_attention(state: State) -> State:
    """`in_proj_*` cut into query, key and value, (3D, ...) into three of (D, ...)."""
    apart: State = {}
    for name, tensor in state.items():
        if match := PACKED.match(name):
            for letter, rows in zip("qkv", tensor.chunk(3), strict=True):
                apart[f"{match['owner']}.{letter}_proj.{match['kind']}"] = rows.clone()  # files keep whole storages
        else:
            apart[name] = tensor
    return apart


WRITERS: dict[Layout, Callable[[State], State]] = {"official": dict, "hf": to_hf}
