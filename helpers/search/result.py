"""What a search returns: the trials as a table, and the settings of the best."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.config import TrainingConfig, TrainingConfigBuilder
from helpers.errors import SearchError
from helpers.search.names import setting_values
from helpers.search.space import SearchSpace
from helpers.search.trial import MAXIMIZED, Trial, words

if TYPE_CHECKING:
    import pandas as pd

ITEMS = (
    "best_params",
    "best_value",
    "best_trial",
    "best_config",
    "trial_results",
    "all_trials",
    "trials",
    "n_trials",
    "status",
    "name",
)


@dataclass(frozen=True, repr=False)
class SearchResult:
    """The outcome of `run_search`; `result.best_params` and `result["best_params"]` are the same.

    `status` is completed, paused by an interrupt, or exhausted, when there were no more points, or
    half of the trials and more did not complete.
    """

    name: str
    folder: str
    status: str
    metric: str
    n_wanted: int
    trials: tuple[Trial, ...]
    space: SearchSpace
    training_config: TrainingConfig

    @property
    def best_trial(self) -> Trial:
        """The completed trial with the best value; of equal ones the first.

        Raises: SearchError if none has completed.
        """
        sign = -1 if self.metric in MAXIMIZED else 1
        known = [(sign * t.value, t.number, t) for t in self.trials if t.value is not None]
        if not known:
            raise SearchError(
                f"The search {self.name} has {self._counts()}, but the best is one of those "
                "completed. Look at trial_results for the reasons, or go on with the search."
            )
        return min(known)[2]

    @property
    def best_params(self) -> dict[str, Any]:
        """The values of the best trial."""
        return dict(self.best_trial.params)

    @property
    def best_value(self) -> float:
        """The metric of the best trial."""
        value = self.best_trial.value
        assert value is not None
        return value

    @property
    def best_config(self) -> TrainingConfig:
        """The settings that were given, changed to those of the best trial.

        Names of the model's factory are in `best_params` only.
        """
        changes = setting_values(self.best_params)
        return (
            TrainingConfigBuilder.from_config(self.training_config).with_settings(**changes).build()
        )

    @property
    def n_trials(self) -> int:
        """How many trials there are, in whatever state."""
        return len(self.trials)

    @property
    def all_trials(self) -> list[dict[str, Any]]:
        """Number, value and values of all trials."""
        return [{"number": t.number, "value": t.value, "params": t.params} for t in self.trials]

    @property
    def trial_results(self) -> pd.DataFrame:
        """One row a trial; a parameter that was not active is NaN.

        Units: `seconds` of wall time.
        """
        import pandas

        names = [n for n in self.space.parameters if any(n in t.params for t in self.trials)]
        rows = [
            {"trial": t.number, "state": t.state, "value": t.value}
            | {name: t.params.get(name) for name in names}
            | {"seconds": t.seconds, "run_id": t.run_id, "reason": t.reason}
            for t in self.trials
        ]
        columns = ["trial", "state", "value", *names, "seconds", "run_id", "reason"]
        return pandas.DataFrame(rows, columns=columns).astype({"value": "float64"})

    def keys(self) -> list[str]:
        """Names of all items."""
        return list(ITEMS)

    def __getitem__(self, name: str) -> Any:
        if name not in ITEMS:
            raise KeyError(f"{name!r} is not in the result, which has {', '.join(ITEMS)}.")
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(ITEMS)

    def rows(self) -> list[tuple[str, str]]:
        """What a reader wants to see."""
        rows = [("search", f"{self.name}, {self.status}")]
        rows.append(("trials", f"{self._counts()}; {self.n_wanted} completed ones were wanted"))
        if any(trial.value is not None for trial in self.trials):
            best = self.best_trial
            equals = [t.number for t in self.trials if t.value == best.value][1:]
            tie = f", as {' and '.join(f'trial {n}' for n in equals)}" if equals else ""
            rows.append((f"best {self.metric}", f"{best.value:.4g} in trial {best.number}{tie}"))
            rows.append(("its values", words(best.params)))
        rows.append(("time", f"{sum(trial.seconds for trial in self.trials):.1f} s"))
        if self.status == "paused":
            rows.append(("to go on", "run the same cell again"))
        return rows

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows()) + 2
        return "\n".join(f"{name:<{width}}{value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        cell = "<td style='text-align:left'>"
        rows = "".join(
            f"<tr>{cell}{html.escape(name)}</td>{cell}{html.escape(value)}</td></tr>"
            for name, value in self.rows()
        )
        table = self.trial_results.to_html(index=False, max_rows=20, na_rep="")
        return f"<table>{rows}</table>{table}"

    def _counts(self) -> str:
        """How many trials ended in which state, in words."""
        counts = Counter(trial.state.replace("_", " ") for trial in self.trials)
        return ", ".join(f"{n} {state}" for state, n in counts.most_common()) or "no trials"
