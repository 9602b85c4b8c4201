"""Our trainer beside a hand-written loop: speed of a step, and time to the first one.

    python benchmarks/bench_trainer.py [--rounds 5] [--sizes nano tiny]

Every measurement is a process of its own, rounds are interleaved, and both train the same model on
the same bytes with fused AdamW, clipping, warm-up and cosine. The model stamps the clock at each
training forward, so both are timed in the same place. Figures are ratios within one run: the speed
of the undisturbed steps (10 % quantile over all rounds) and the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SIZES = {
    "nano": {"n_layers": 1, "d_model": 16, "n_heads": 1, "ctx": 16, "batch": 2, "steps": 800},
    "tiny": {"n_layers": 2, "d_model": 64, "n_heads": 2, "ctx": 64, "batch": 4, "steps": 300},
}
PEERS, HELD_OUT = ("raw", "ours"), 65_536
LR, MIN_LR, WEIGHT_DECAY, BETAS, CLIP, WARMUP, SEED = 3e-3, 3e-4, 0.1, (0.9, 0.95), 1.0, 0.1, 1234


@dataclass
class Job:
    """What a peer has to train; see `benchmarks/ours.py` for what it may use."""

    size: str
    workdir: str
    dtype: str = "fp32"
    log_every: int = 50
    stamps: list[float] = field(default_factory=list)
    logs: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cfg = SIZES[self.size]
        self.steps = self.cfg["steps"]

    def make_model(self) -> Any:
        """A decoder that notes the time at each training forward."""
        import torch

        from helpers.models import Decoder, DecoderConfig

        torch.manual_seed(SEED)
        shape = {name: self.cfg[name] for name in ("n_layers", "d_model", "n_heads")}
        model = Decoder(DecoderConfig(256, **shape))
        model.register_forward_pre_hook(
            lambda m, _: self.stamps.append(time.perf_counter()) if m.training else None
        )
        self.model = model
        return model

    def tokens(self) -> Any:
        """The bytes of the standard library's modules but the last ones, as uint16."""
        return _bytes()[:-HELD_OUT]

    def val_loss(self) -> float:
        """Loss on the bytes that were held out, in nats: that it learned, and how much."""
        import torch
        from torch.nn import functional as F

        window = torch.from_numpy(_bytes()[-HELD_OUT:].astype("int64"))
        window = window[: -(HELD_OUT % (self.cfg["ctx"] + 1)) or None].view(-1, self.cfg["ctx"] + 1)
        with torch.no_grad():
            logits = self.model.eval()(window[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten()).item()


def _bytes() -> Any:
    import sysconfig

    import numpy as np

    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return np.frombuffer(b"".join(map(Path.read_bytes, files)), np.uint8).astype(np.uint16)


def raw(job: Job) -> None:
    """The loop one would write by hand, with nothing in it that is slow."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    model, data, c = job.make_model().train(), job.tokens(), job.cfg
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LR, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    parameters, group = list(model.parameters()), optimizer.param_groups[0]
    rng, span = np.random.default_rng(SEED), np.arange(c["ctx"] + 1)
    last = len(data) - c["ctx"] - 1
    for step in range(job.steps):
        starts = rng.integers(0, last, c["batch"])
        window = torch.from_numpy(data[starts[:, None] + span].astype(np.int64))
        group["lr"] = lr_at(step, job.steps)
        logits = model(window[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % job.log_every == 0:
            job.logs.append((step + 1, loss.item()))


def lr_at(step: int, total: int) -> float:
    """Linear warm-up, then half a cosine."""
    warmup = max(1, int(total * WARMUP))
    if step < warmup:
        return LR * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return MIN_LR + 0.5 * (LR - MIN_LR) * (1 + math.cos(math.pi * done))


def work(peer: str, size: str, started: float) -> None:
    """Train one job in this process and print what it took."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as workdir:
        job = Job(size, workdir)
        if peer == "ours":
            from benchmarks.ours import run
        else:
            run = raw
        run(job)
    warm = job.steps // 4
    gaps = [b - a for a, b in zip(job.stamps[warm:-1], job.stamps[warm + 1 :], strict=True)]
    print(json.dumps({"first": job.stamps[1] - started, "gaps": gaps, "loss": job.val_loss()}))


def measure(peer: str, size: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--work", peer, size]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BENCH_STARTED": repr(time.perf_counter())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def low(values: list[float]) -> float:
    """The 10 % quantile: the time when nothing else disturbed."""
    return sorted(values)[len(values) // 10]


def report(size: str, got: dict[str, list[dict[str, Any]]]) -> None:
    """Print one table of ratios."""
    base = got["raw"]
    floor = low([gap for result in base for gap in result["gaps"]])
    print(f"\n{size}: {SIZES[size]}\n")
    print("| peer | steps per s | speed / raw | speed / raw, median of rounds | first step s | "
          "first step / raw | validation loss |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for peer, results in got.items():
        step = low([gap for result in results for gap in result["gaps"]])
        paired = statistics.median(
            statistics.mean(b["gaps"]) / statistics.mean(r["gaps"])
            for b, r in zip(base, results, strict=True)
        )
        first = statistics.median(r["first"] for r in results)
        ratio = statistics.median(
            r["first"] / b["first"] for b, r in zip(base, results, strict=True)
        )
        loss = statistics.median(r["loss"] for r in results)
        print(f"| {peer} | {1 / step:.0f} | {floor / step:.3f} | {paired:.3f} | {first:.2f} | "
              f"{ratio:.2f} | {loss:.3f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work, started=float(os.environ["BENCH_STARTED"]))
        return
    for size in options.sizes:
        got: dict[str, list[dict[str, Any]]] = {peer: [] for peer in PEERS}
        for turn in range(options.rounds + 1):
            for peer in PEERS:
                result = measure(peer, size)
                if turn:  # the first round warms the page cache
                    got[peer].append(result)
        report(size, got)


if __name__ == "__main__":
    main()
