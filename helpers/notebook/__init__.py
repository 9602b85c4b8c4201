"""What a notebook shows: the runtime it got, live progress, plots, and the record of a run."""
