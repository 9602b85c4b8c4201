"""Our trainer as a peer of a side-by-side benchmark: the same model, data, optimizer and schedule.

`run(job)` trains `job.make_model()` for `job.steps` steps on `job.tokens()`, as the other peers do:
AdamW, linear warm-up then cosine, clipping, a log every `job.log_every` steps, no checkpoint on the
way, no progress bar.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LR, MIN_LR, WEIGHT_DECAY, BETAS, CLIP = 3e-3, 3e-4, 0.1, (0.9, 0.95), 1.0
WARMUP_FRACTION, SEED = 0.1, 1234


def run(job: Any) -> None:
    """Train one job through the public Trainer."""
    from helpers.config import TrainingConfig
    from helpers.data.packing import PackedTokens
    from helpers.trainer import Trainer

    config = TrainingConfig(
        max_steps=job.steps,
        batch_size=job.cfg["batch"],
        sequence_length=job.cfg["ctx"],
        seed=SEED,
        optimizer="adamw",
        learning_rate=LR,
        weight_decay=WEIGHT_DECAY,
        beta1=BETAS[0],
        beta2=BETAS[1],
        max_grad_norm=CLIP,
        scheduler="cosine",
        warmup_fraction=WARMUP_FRACTION,
        min_lr_ratio=MIN_LR / LR,
        precision=job.dtype,
        device="cpu",
        log_every=job.log_every,
        eval_every=0,
        save_every=0,
        panel="off",
        database="off",
        output_dir=job.workdir,
    )
    train = PackedTokens(job.tokens(), job.cfg["ctx"])
    result = Trainer(job.make_model(), training_config=config).train(train)
    history = result.history
    job.logs.extend(zip(history["step"].tolist(), history["train/loss"].tolist(), strict=True))
