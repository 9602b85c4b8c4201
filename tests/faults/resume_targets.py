"""Targets of check-resume: a run that resumes exactly, and runs with a state in no checkpoint."""

import time

import torch
from torch import nn

from helpers import Callback, Trainer

N_TOKENS, WIDTH = 50, 16


class Small(nn.Module):
    """A table and a matrix; `noise` is what a kind of model adds to its hidden state."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.out = nn.Embedding(N_TOKENS, WIDTH), nn.Linear(WIDTH, N_TOKENS)

    def forward(self, input_ids):
        hidden = self.table(input_ids)
        return self.out(hidden + self.noise(hidden) if self.training else hidden)

    def noise(self, hidden):
        return 0.01 * torch.randn_like(hidden)


class Counting(Small):
    """It counts its calls in a plain number."""

    calls = 0

    def noise(self, hidden):
        self.calls += 1
        return 0.001 * self.calls


class Unregistered(Small):
    """It keeps a running mean in a tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(WIDTH)

    def noise(self, hidden):
        self.mean = 0.9 * self.mean + 0.1 * hidden.detach().mean(dim=(0, 1))
        return -self.mean


class OwnGenerator(Small):
    """It draws from a generator that nobody else knows."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def noise(self, hidden):
        return 0.01 * torch.randn(WIDTH, generator=self.generator)


class Clocked(Small):
    """It reads the clock, so that no two runs are the same."""

    def noise(self, hidden):
        return 0.01 * (time.monotonic() % 1.0)


class Fading(Callback):
    """It fades a bias by the number of rows that it saw, which it forgets."""

    def __init__(self):
        self.rows = 0

    def on_log(self, run, row):
        self.rows += 1
        with torch.no_grad():
            run.model.out.bias.mul_(1 - 0.001 * self.rows)


class Lost(Callback):
    """It has a state, and cannot take it up again."""

    def state_dict(self):
        return {"n": 1}

    def load_state_dict(self, state):
        raise RuntimeError("this state is lost")


class Pausing(Callback):
    """It asks for a pause at step 6."""

    def on_log(self, run, row):
        if row["step"] == 6:
            run.stop.set("enough for today")


class PausingLater(Callback):
    """It pauses a run that goes on, and not one that begins."""

    def on_log(self, run, row):
        if run.resumed_from:
            run.stop.set("enough for today")


def rows(n, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(N_TOKENS, (n, 9), generator=generator)
    return [{"input_ids": row[:-1], "labels": row[1:]} for row in ids]


def built(config, model, *callbacks):
    trainer = Trainer(model, training_config=config, callbacks=callbacks)
    return trainer, rows(64, 1), rows(8, 2)


def sound(config):
    return built(config, Small())


def counting(config):
    return built(config, Counting())


def unregistered(config):
    return built(config, Unregistered())


def own_generator(config):
    return built(config, OwnGenerator())


def forgetful_callback(config):
    return built(config, Small(), Fading())


def clocked(config):
    return built(config, Clocked())


def lost(config):
    return built(config, Small(), Lost())


def pausing(config):
    return built(config, Small(), Pausing())


def pausing_later(config):
    return built(config, Small(), PausingLater())


def a_model_alone(config):
    return Small()


def without_config():
    return built(None, Small())


def stubborn(config):
    return built(config.replace(batch_size=4), Small())


def broken(config):
    raise ValueError("nothing here")
