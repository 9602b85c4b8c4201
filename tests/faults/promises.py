"""What this project promises of its runs, the tests that show it, and what they do not show."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """A promise: the key of its record, the file that makes it, and what shows the file can fail.

    `controls` are tests that take a protection away and see the same check go red, by file and
    name. An `is_optional` one needs something that not every machine has; `needs` says what.
    """

    key: str
    title: str
    file: str
    controls: tuple[str, ...] = ()
    needs: str = ""

    @property
    def is_optional(self) -> bool:
        """Whether a run of all tests is whole without it."""
        return bool(self.needs)


COLAB = "a Python with Colab's IPython, named in TRAINBOOK_COLAB_PYTHON"
PROMISES = (
    Promise(
        "kills",
        "Killed while it trains or saves",
        "tests/faults/test_kills.py",
        ("tests/faults/test_kills.py::test_a_store_that_does_not_keep_the_promise_goes_red",),
    ),
    Promise(
        "crash_states",
        "Power lost during a save",
        "tests/faults/test_crash_states.py",
        (
            "tests/faults/test_crash_states.py::"
            "test_without_fsync_there_are_states_that_lose_a_checkpoint",
        ),
    ),
    Promise(
        "damage",
        "Checkpoints that are damaged",
        "tests/faults/test_damage.py",
        (
            "tests/faults/test_damage.py::"
            "test_without_the_hashes_most_flipped_bits_are_loaded_in_silence",
        ),
    ),
    Promise(
        "resume",
        "Resumed again and again",
        "tests/faults/test_chains.py",
        ("tests/faults/test_chains.py::test_a_chain_without_one_part_of_the_state_goes_red",),
    ),
    Promise(
        "check_resume",
        "Resumed with your own model",
        "tests/faults/test_check_resume.py",
        (
            "tests/faults/test_check_resume.py::"
            "test_every_planted_state_is_found_and_a_sound_run_is_the_same",
        ),
    ),
    Promise(
        "disk_full",
        "The disk is full",
        "tests/faults/test_disk_full.py",
        ("tests/faults/test_disk_full.py::test_without_its_protections_a_full_disk_does_harm",),
    ),
    Promise(
        "disk_calls",
        "Any call to the disk fails",
        "tests/faults/test_checkpoint_faults.py",
    ),
    Promise(
        "interrupts",
        "Interrupted at any moment",
        "tests/faults/test_interrupts.py",
        ("tests/faults/test_interrupts.py::test_what_does_not_keep_the_promise_goes_red",),
    ),
    Promise(
        "other_side",
        "Mirror or logger fails",
        "tests/faults/test_mirror.py",
        (
            "tests/faults/test_mirror.py::test_without_reading_back_a_lie_is_taken_for_a_copy",
            "tests/faults/test_mirror.py::"
            "test_without_the_table_of_mounts_the_copies_land_on_the_local_disk",
            "tests/faults/test_mirror.py::test_without_comparing_owners_two_machines_write",
        ),
    ),
    Promise(
        "metrics",
        "Many writers in the database of runs",
        "tests/faults/test_database.py",
        (
            "tests/faults/test_database.py::"
            "test_rows_acknowledged_before_they_are_written_would_be_missed",
            "tests/faults/test_database.py::test_deferred_transactions_would_fail",
        ),
    ),
    Promise(
        "database",
        "A database of runs that is damaged",
        "tests/faults/test_database_damage.py",
        (
            "tests/faults/test_database_damage.py::"
            "test_without_the_check_damage_would_be_taken_for_sound",
        ),
    ),
    Promise(
        "bad_data",
        "Data that is bad",
        "tests/faults/test_bad_data.py",
        ("tests/faults/test_bad_data.py::test_without_its_check_bad_data_would_be_trained_on",),
    ),
    Promise(
        "reruns",
        "Cells run again and again",
        "tests/faults/test_reruns.py",
        ("tests/faults/test_reruns.py::test_what_a_cell_leaves_behind_is_seen",),
    ),
    Promise(
        "reruns_colab",
        "Cells run again, with Colab's IPython",
        "tests/faults/test_reruns.py",
        ("tests/faults/test_reruns.py::test_what_a_cell_leaves_behind_is_seen",),
        needs=COLAB,
    ),
    Promise("cost", "What saving costs", "benchmarks/bench_checkpoint.py"),
    Promise(
        "guard",
        "Losses that are not finite",
        "tests/test_guard.py",
        ("tests/test_guard.py::test_without_the_verdict_one_bad_step_ruins_the_weights",),
    ),
    Promise("guard_cost", "What the guard costs", "benchmarks/bench_guard.py"),
    Promise(
        "memory_after_errors",
        "Memory after an error in a cell",
        "tests/test_memory.py",
        ("tests/test_memory.py::test_memory_returns_to_where_it_was_after_an_error_in_a_cell",),
    ),
    Promise(
        "memory_after_errors_colab",
        "Memory after an error, with Colab's IPython",
        "tests/test_memory.py",
        ("tests/test_memory.py::test_memory_returns_to_where_it_was_after_an_error_in_a_cell",),
        needs=COLAB,
    ),
    Promise(
        "owner",
        "Two kernels, one run; clocks that jump",
        "tests/faults/test_owner.py",
        ("tests/faults/test_owner.py::test_without_the_system_lock_two_processes_own_one_run",),
    ),
    Promise(
        "old_files",
        "Files of earlier versions",
        "tests/faults/test_old_files.py",
    ),
    Promise(
        "old_runs",
        "Runs that an earlier version began",
        "tests/test_released.py",
    ),
)
# These take longest, so they begin first.
LONG = (
    "tests/faults/test_reruns.py",
    "tests/faults/test_kills.py",
    "tests/faults/test_interrupts.py",
    "tests/faults/test_check_resume.py",
)
# These are timed, so nothing else runs beside them.
ALONE = ("benchmarks/bench_checkpoint.py", "benchmarks/bench_guard.py")

LIMITS = (
    "A kill with SIGKILL takes the process and leaves the kernel's memory: it says nothing about "
    "a power loss. Crash states say something about that, but they are a model: what a file "
    "system may leave is enumerated from a recorded trace, and no machine was switched off.",
    "A disk that says it has written what it has not is outside every promise here; the hashes "
    "find the damage later, and the checkpoint before is used.",
    "Bits are compared on the CPU, with one thread, on one machine and one version of torch. "
    "Another GPU, another number of threads or another version may add in another order.",
    "No GPU was used for these figures: neither its memory, nor its random state, nor "
    "the time of copies from it is measured here.",
    "The mirror is tested on folders that fail, hang, fill up and lie as Drive does; the figures "
    "are not from Drive itself.",
    "Steps that were done after the newest checkpoint are computed again after a kill; at the "
    "default cadence that is at most the work of save_minutes.",
    "Runs of earlier versions go on where the code of their model is the same; a run of a later "
    "version is refused by name.",
    "Off the main thread no signal can be caught: there the control files stop a run.",
    "A tmpfs is what stands for a small disk. A quota that is met while writing is shown by "
    "leaving out the question for room.",
    "What a notebook itself keeps of each cell, its source and its shown value, grows with every "
    "cell, and is subtracted: an empty cell keeps as much.",
    "A checkpoint holds weights, buffers, the optimizer and the random states of torch, NumPy and "
    "Python. What a model keeps elsewhere, as a counter of its own, is lost; random generators of "
    "its own are named when the run starts, and check-resume finds all of it.",
    "Another size of micro-batch on resume draws other masks of dropout and other statistics of "
    "batch norm: the run is as good, but not the same to the bit. A GPU that may choose its "
    "algorithms needs deterministic=True for that.",
    "The cost of saving is measured without validation: the checkpoint of a new best validation "
    "is always written, also where saves by steps are put off, so that the best weights stay.",
    "Spikes are seen in the norm of the gradient; a loss that jumps with a quiet gradient is no "
    "spike here.",
    "A redone step puts back the random states of Python and NumPy if the first step drew from "
    "them; those of torch always.",
    "eval_every and eval_sequences may change on resume; with early_stopping_patience they decide "
    "where the run ends.",
    "Times are of the machine above, whose disk and load are its own; ratios carry over better.",
)
"""What the figures do not say."""
