"""Tiny random open_clip models whose towers are not CLIP's: the kinds that SigLIP, MobileCLIP, CoCa and others are.

Configurations have the words of open_clip's own for each kind, with small sizes. Nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, RobertaConfig

WORDS = ("a", "red", "circle", "moves", "to", "the", "left", "snow", "word", "up", "still", "keep", "move")
TEXT = {"vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}


def siglip(folder: Path) -> dict:
    """As ViT-B-16-SigLIP2: timm's ViT that pools by attention, a bias beside the scale, a tokeniser of its own."""
    vision = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"}
    text = TEXT | {
        "context_length": 16,
        "vocab_size": 32,
        "hf_tokenizer_name": str(save_tokeniser(folder / "siglip-words")),
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"},
    }
    sizes = {"embed_dim": 64, "init_logit_bias": -10, "custom_text": True, "nonscalar_logit_scale": True}
    return sizes | {"vision_cfg": vision, "text_cfg": text}


def mobileclip(folder: Path, trunk: str = "test_efficientnet") -> dict:
    """As MobileCLIP-S1: a convolutional trunk with batch norm, whose classifier is the projection."""
    vision = {"image_size": 64, "timm_model_name": trunk, "timm_pool": "avg", "timm_proj": None}
    vision |= {"timm_drop": 0.0, "timm_drop_path": 0.0}
    text = TEXT | {"context_length": 77, "no_causal_mask": True}
    return {"embed_dim": 64, "custom_text": True, "vision_cfg": vision, "text_cfg": text}


def coca(folder: Path) -> dict:
    """As coca_ViT-B-32: a captioner, whose vectors are of unit length unless asked otherwise."""
    text = TEXT | {"context_length": 76}
    vision = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}
    vision |= {"attentional_pool": True, "attn_pooler_heads": 1, "output_tokens": True}
    words = text | {"embed_cls": True, "output_tokens": True}
    return {
        "embed_dim": 64,
        "custom_text": True,
        "vision_cfg": vision,
        "text_cfg": words,
        "multimodal_cfg": text | {"attn_pooler_heads": 1},
    }


def multilingual(folder: Path) -> dict:
    """As xlm-roberta-base-ViT-B-32: transformers' text tower, with more positions than texts are long."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 1}
    words = RobertaConfig(vocab_size=32, pad_token_id=1, max_position_embeddings=514, **sizes)
    words.save_pretrained(folder / "roberta")
    text = {
        "hf_model_name": str(folder / "roberta"),
        "hf_tokenizer_name": str(save_tokeniser(folder / "roberta-words")),
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "mlp",
    }
    vision = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1}
    return {"embed_dim": 64, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}


KINDS: dict[str, Callable[[Path], dict]] = {
    "tiny-siglip": siglip,
    "tiny-mobileclip": mobileclip,
    "tiny-coca": coca,
    "tiny-multilingual": multilingual,
}


def make(name: str, folder: Path, config: dict) -> tuple[str, nn.Module]:
    """Makes open_clip know an architecture; returns the source of a file of its weights, and open_clip's own model."""
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    model = _random(open_clip.create_model(name, pretrained_text=False))
    torch.save(model.state_dict(), folder / f"{name}.pt")
    return f"openclip:{name}={folder}/{name}.pt", model


def _random(model: nn.Module) -> nn.Module:
    """Everything random, running means and variances too, but the scale of the logits and their bias."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point() or name.startswith("logit_"):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith(("bias", "running_mean")):
                tensor.copy_(0.3 * noise)
            else:
                tensor.copy_(1 + 0.3 * noise.clamp(-2, 2))
    return model.eval()


def save_tokeniser(folder: Path) -> Path:
    """A tokeniser of few words as a HuggingFace folder; like SigLIP's it ends a text with the token it pads with."""
    vocabulary = {token: number for number, token in enumerate(("<unk>", "</s>", *WORDS))}
    tokeniser = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokeniser.normalizer = normalizers.Lowercase()
    tokeniser.pre_tokenizer = pre_tokenizers.Whitespace()
    tokeniser.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    whole = PreTrainedTokenizerFast(tokenizer_object=tokeniser, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
    whole.save_pretrained(folder)
    return folder
