"""Muon: momentum whose matrices are made nearly orthogonal before each update."""

from __future__ import annotations

import torch
from torch import Tensor

# Coefficients of the quintic iteration; they push all singular values into about 0.7 to 1.2.
# Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5


def orthogonalize(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearest semi-orthogonal matrices, approximately, by five Newton-Schulz iterations.

    The norm is taken in fp32 and only then cast to `dtype`: an fp16 cast of small or large
    gradients would lose them.

    Shapes: (N, rows, columns) -> the same, of type `dtype`.
    """
    x = matrices.float()
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-20)).to(dtype)
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.mT if is_tall else x


def muon_step(
    parameters: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    dtype: torch.dtype,
    held: Tensor | None = None,
) -> None:
    """Update matrices of one shape in place; where the scalar `held` is 1, nothing changes.

    The update has the root mean square of AdamW's, so both share one learning rate.

    Source: Jordan et al. 2024 (Nesterov momentum); Liu et al. 2025, arXiv:2502.16982, section 2.2
    (scale of 0.2 times the root of the longer side).
    """
    shrink: float | Tensor = 1 - lr * weight_decay
    if held is not None:
        # A momentum that moves towards itself stays; what is not finite cannot be multiplied away.
        is_held = held > 0
        gradients = [torch.where(is_held, m, g) for m, g in zip(momenta, gradients, strict=True)]
    torch._foreach_lerp_(momenta, gradients, 1 - momentum)
    ahead = torch._foreach_lerp(gradients, momenta, momentum)
    rows, columns = parameters[0].shape
    update = orthogonalize(torch.stack(ahead), dtype).to(parameters[0].dtype)
    if held is not None:
        update = update.masked_fill_(is_held, 0.0)
        shrink = torch.full_like(held, shrink, dtype=update.dtype).masked_fill_(is_held, 1.0)
    if weight_decay:
        torch._foreach_mul_(parameters, shrink)
    scale = 0.2 * max(rows, columns) ** 0.5
    torch._foreach_add_(parameters, list(update.unbind()), alpha=-lr * scale)
