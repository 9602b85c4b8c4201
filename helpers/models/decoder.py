"""The reference decoder: pre-norm blocks, rotary positions, normed queries and keys, squared ReLU.

Legend: B batch, T time (tokens), C d_model, H heads, D width of a head, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.errors import ConfigError


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder; everything needed to build it anew.

    Raises: ConfigError if the heads do not divide the width into even parts.
    """

    vocab_size: int
    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    mlp_ratio: int = 4
    dropout: float = 0.0
    tie_embeddings: bool = False
    rope_base: float = 10_000.0

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads or self.d_model // self.n_heads % 2:
            raise ConfigError(
                f"d_model is {self.d_model} and n_heads is {self.n_heads}, but every head needs an "
                "even, whole width. Change one of them."
            )

    def to_dict(self) -> dict[str, Any]:
        """All values as plain types."""
        return dataclasses.asdict(self)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and RMS-normed queries and keys.

    Source: Su et al. 2021, arXiv:2104.09864; Henry et al. 2020, arXiv:2010.04245 (QK-norm).
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.n_heads, width = config.n_heads, config.d_model
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:  # (B, T, C) -> same
        shape = (*x.shape[:2], self.n_heads, -1)
        q = _rotate(_norm(self.query(x).view(shape)), rotation)  # (B, T, H, D)
        k = _rotate(_norm(self.key(x).view(shape)), rotation)
        v = self.value(x).view(shape)
        mixed = _attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.output(mixed.transpose(1, 2).reshape(x.shape))


class MLP(nn.Module):
    """Two matrices with a squared ReLU between them.

    Source: So et al. 2021, arXiv:2109.08668 (Primer), section 3.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.mlp_ratio * config.d_model, bias=False)
        self.down = nn.Linear(config.mlp_ratio * config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    """One layer: attention, then MLP, each added to the residual stream."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(config), MLP(config)
        self.attention_norm = nn.RMSNorm(config.d_model)
        self.mlp_norm = nn.RMSNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), rotation))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Decoder(nn.Module):
    """Predict each next token from the tokens before it.

    Untrained, every token is about equally likely: matrices that write to the residual stream start
    at zero and the head starts small, so the first loss is close to ln(V). (A tied head favours the
    token it sees, by about exp(0.2 sqrt(C)).)

    Shapes: `input_ids` (B, T) -> logits (B, T, V).
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew from torch's random state."""
        width = self.config.d_model
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.output.weight", "mlp.down.weight")):
                nn.init.zeros_(parameter)
            elif name == "embedding.weight":
                tied = self.config.tie_embeddings
                nn.init.normal_(parameter, std=0.2 / math.sqrt(width) if tied else 1.0)
            elif name == "head.weight":
                nn.init.normal_(parameter, std=0.2 / math.sqrt(width))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=1 / math.sqrt(width))

    def forward(self, input_ids: Tensor) -> Tensor:
        x = _norm(self.embedding(input_ids))
        head_width = self.config.d_model // self.config.n_heads
        rotation = _rotation(input_ids.shape[1], head_width, self.config.rope_base, x.device)
        for block in self.blocks:
            x = block(x, rotation)
        return self.head(self.norm(x))


def build_decoder(config: DecoderConfig, *, seed: int) -> Decoder:
    """Build a decoder whose weights follow from the seed; torch's random state is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Decoder(config)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (B, H, T, D) each -> same
    """Causal attention by torch's fused kernel."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
    # In bf16 the backward pass of the CPU kernel takes 4.7 times as long as in fp32 (torch 2.13,
    # 16 x 4 x 128 x 32, AMX machine, 2026-11-23), so attention stays in fp32 there.
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)


def _norm(x: Tensor) -> Tensor:
    """Scale the last dimension to a root mean square of one."""
    return F.rms_norm(x, (x.shape[-1],))


def _rotation(
    n_tokens: int, head_width: int, base: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine (T, 1, 1, D / 2) and signed sine (T, 1, 2, D / 2) of position times frequency."""
    half = head_width // 2
    frequency = base ** -(torch.arange(half, device=device, dtype=torch.float32) / half)
    angle = torch.outer(torch.arange(n_tokens, device=device, dtype=torch.float32), frequency)
    sin = angle.sin()
    return angle.cos()[:, None, None], torch.stack((-sin, sin), dim=1)[:, None]


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:  # (B, T, H, D) -> same
    """Turn the pair (x[i], x[i + D / 2]) by the angle of its position and frequency."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    pairs = x.unflatten(-1, (2, -1))
    # flip, unlike chunk, has a backward pass that fills no zeros: a fifth of the step on a CPU.
    return (pairs * cos + pairs.flip(-2) * sin).flatten(-2)
