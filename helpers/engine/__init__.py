"""The parts of a training run below the trainer."""
