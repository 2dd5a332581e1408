"""The start of X-CLIP training: CLIP's weights, and initial values for exactly the parts that CLIP does not have.

Spec §7. The values are drawn from a fixed seed, so that the same CLIP is the same start everywhere. Such a model has
learnt nothing about time: it is to be trained, not searched with, and its provenance says so.
"""

from __future__ import annotations

import torch
from torch import nn

from schemas.errors import WeightsError
from xclip_core import weights
from xclip_core.config import XClipConfig
from xclip_core.initialise import initialise_xclip
from xclip_core.layouts import NEW, State
from xclip_core.model import shapes, without_values

SEED = 0
FRAMES = 8  # unless asked otherwise: what most released models take

# Vision towers of CLIP whose heads are not 64 wide. Weights do not tell, and read with other heads they are noise.
OTHER_HEADS = {1280: "ViT-H (80)", 1408: "ViT-g (88)", 1664: "ViT-bigG (104)", 1792: "ViT-e (112)"}

NOTE = (
    "this model is not trained: CLIP weights with new temporal parts, where fine-tuning starts and nothing to search "
    "with; X-CLIP computes with QuickGELU, so that weights trained with exact GELU start worse"
)


def start_from_clip(clip: State, frames: int) -> State:
    """CLIP's tensors, official names, with X-CLIP's own beside them. Raises WeightsError where CLIP is incomplete."""
    config = weights.infer_config(clip, start_frames=frames)
    if config.vision_width in OTHER_HEADS:
        raise WeightsError(
            f"this is a CLIP of {config.vision_width} wide vision layers, {OTHER_HEADS[config.vision_width]}; "
            "X-CLIP's heads are 64 wide, expected ViT-B or ViT-L"
        )
    weights.check_fit(clip, {name: shape for name, shape in shapes(config).items() if not NEW.match(name)})
    return clip | new_parts(config)


def new_parts(config: XClipConfig) -> State:
    """Initial values of everything that X-CLIP of these sizes adds to CLIP, float32."""
    model = without_values(config)
    model.to_empty(device="cpu")  # memory that is not written is not taken: CLIP's parts cost nothing here
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    initialise_xclip(model, torch.Generator().manual_seed(SEED))
    state = {weights.official_name(name): tensor for name, tensor in model.state_dict().items()}
    return {name: tensor for name, tensor in state.items() if NEW.match(name)}
