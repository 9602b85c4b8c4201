"""Continue a text, one token at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def generate(
    model: nn.Module,
    prompt: Sequence[int],
    n_tokens: int,
    *,
    temperature: float = 0.8,
    top_k: int = 50,
    context: int = 1024,
    end_id: int | None = None,
    seed: int = 0,
) -> list[int]:
    """Return the prompt's ids and up to `n_tokens` more; a temperature of 0 takes the likeliest.

    Draws from a generator of its own, so that a sample during training changes nothing in it.
    `context` is the longest input the model gets; generation stops at `end_id`.
    """
    if not len(prompt):
        raise ValueError("prompt is empty, but a first token is wanted. Start with the end token.")
    device = next(model.parameters()).device
    rng = torch.Generator(device="cpu").manual_seed(seed)
    ids = torch.tensor([list(prompt)], dtype=torch.long, device=device)
    was_training = model.training
    model.eval()
    try:
        for _ in range(n_tokens):
            logits = _logits_of(model(ids[:, -context:]))[0, -1].float().cpu()
            next_id = _draw(logits, temperature, top_k, rng)
            ids = torch.cat((ids, next_id.to(device).view(1, 1)), dim=1)
            if end_id is not None and int(next_id) == end_id:
                break
    finally:
        model.train(was_training)
    return ids[0].tolist()


def complete_text(
    model: nn.Module, tokenizer: Any, prompt: str, n_tokens: int, **options: Any
) -> str:
    """Continue a text as the start of a document; `options` are those of `generate`."""
    ids = [tokenizer.end_id, *tokenizer.encode(prompt)]
    return tokenizer.decode(generate(model, ids, n_tokens, end_id=tokenizer.end_id, **options))


def _logits_of(output: Any) -> Tensor:
    """The logits in a tensor, a mapping, a tuple that starts with them, or an object."""
    if isinstance(output, Mapping):
        return output["logits"]
    if isinstance(output, tuple | list):
        return output[0]
    return getattr(output, "logits", output)


def _draw(logits: Tensor, temperature: float, top_k: int, rng: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax()
    best, index = logits.topk(min(top_k, len(logits)))
    weights = torch.softmax(best / temperature, dim=0)
    return index[torch.multinomial(weights, 1, generator=rng)]
