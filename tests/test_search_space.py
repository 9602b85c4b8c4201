"""A space says what is searched: checked when it is made, plain data, and drawn from by laws."""

import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.config import TrainingConfig, check_value
from helpers.errors import ConfigError
from helpers.search import Choice, Const, Constraint, Derived, Float, Int, SearchSpace, When
from helpers.search.expression import evaluate, names_in
from helpers.search.suggest import grid, quasi_random, random, suggestion, suggestions

SPACE = SearchSpace(
    {
        "learning_rate": Float(1e-4, 1e-1, log=True),
        "dropout": Float(0.0, 0.5, step=0.1),
        "weight_decay": Float(0.0, 1.0),
        "n_heads": Int(1, 4),
        "d_model": Int(16, 64, step=16),
        "batch_size": Int(1, 256, log=True),
        "optimizer": Choice(["muon", "adamw"]),
        "muon_momentum": When("optimizer", ["muon"], Float(0.9, 0.99)),
        "beta2": When("optimizer", "adamw", Choice([0.95, 0.99])),
        "model.width": Derived("d_model * 2"),
        "model.momentum": Derived("muon_momentum / 2"),
        "epochs": Const(2.0),
    },
    [Constraint("d_model % (2 * n_heads) == 0", "every head needs an even, whole width")],
)
DRAWS = {"random": random, "quasi_random": quasi_random}


def take(n, found):
    return list(itertools.islice(found, n))


@pytest.fixture(scope="module")
def drawn():
    """A thousand trials of each method."""
    return {name: take(1000, method(SPACE, seed=3)) for name, method in DRAWS.items()}


# What is drawn


@pytest.mark.parametrize("method", DRAWS)
def test_a_thousand_draws_are_inside_the_bounds_and_of_their_type(method, drawn):
    trials = drawn[method]
    lattice = {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}

    assert len(trials) == 1000
    assert all(1e-4 <= t["learning_rate"] <= 1e-1 for t in trials)
    assert all(0 <= t["weight_decay"] <= 1 for t in trials)
    assert {t["dropout"] for t in trials} == lattice
    assert {t["n_heads"] for t in trials} == {1, 2, 3, 4}
    assert {t["d_model"] for t in trials} == {16, 32, 48, 64}
    assert all(1 <= t["batch_size"] <= 256 and type(t["batch_size"]) is int for t in trials)
    assert {t["beta2"] for t in trials if "beta2" in t} == {0.95, 0.99}
    assert {t["epochs"] for t in trials} == {2.0}


@pytest.mark.parametrize("method", DRAWS)
def test_what_is_drawn_is_what_the_settings_take(method, drawn):
    for trial in drawn[method]:
        for name, value in trial.items():
            if not name.startswith("model."):
                check_value(name, value)


@pytest.mark.parametrize("method", DRAWS)
def test_inactive_names_are_absent_and_active_ones_there(method, drawn):
    for trial in drawn[method]:
        is_muon = trial["optimizer"] == "muon"
        assert ("muon_momentum" in trial) == is_muon
        assert ("beta2" in trial) == (not is_muon)
        assert ("model.momentum" in trial) == is_muon
        assert trial["model.width"] == 2 * trial["d_model"]


@pytest.mark.parametrize("method", DRAWS)
def test_constraints_hold_and_no_trial_comes_twice(method, drawn):
    trials = drawn[method]

    assert all(t["d_model"] % (2 * t["n_heads"]) == 0 for t in trials)
    assert len({json.dumps(t) for t in trials}) == 1000


@pytest.mark.parametrize("method", DRAWS)
def test_a_log_range_is_uniform_in_the_logarithm(method):
    space = SearchSpace({"learning_rate": Float(1e-4, 1e-1, log=True)})
    shares = sorted(
        math.log10(t["learning_rate"]) / 3 + 4 / 3 for t in take(1000, DRAWS[method](space, 0))
    )
    # Kolmogorov and Smirnov: 1.63 / sqrt(n) is passed by chance once in a hundred times.
    distance = max(abs(share - i / 1000) for i, share in enumerate(shares))

    assert distance < 1.63 / math.sqrt(1000)


@pytest.mark.parametrize("method", DRAWS)
def test_every_value_of_a_whole_range_is_as_likely_as_the_others(method):
    space = SearchSpace({"n_layers": Int(1, 4), "learning_rate": Float(0.01, 0.02)})
    counts = Counter(t["n_layers"] for t in take(1000, DRAWS[method](space, 1)))

    assert set(counts) == {1, 2, 3, 4}
    assert all(200 < n < 300 for n in counts.values())


def test_the_ends_of_a_whole_log_range_get_their_due():
    counts = Counter(Int(1, 8, log=True).at(i / 1000) for i in range(1000))

    assert set(counts) == set(range(1, 9))
    assert sorted(counts, key=counts.get, reverse=True) == list(range(1, 9))


def test_a_quasi_random_search_covers_the_range_more_evenly_than_chance():
    space = SearchSpace({"weight_decay": Float(0, 1), "dropout": Float(0, 0.9)})
    cells = {
        method: len({(int(8 * t["weight_decay"]), int(8 * t["dropout"] / 0.9)) for t in trials})
        for method, trials in ((m, take(64, DRAWS[m](space, 5))) for m in DRAWS)
    }

    assert cells["quasi_random"] == 64
    assert cells["random"] < 50


@pytest.mark.parametrize("method", ["random", "quasi_random"])
def test_trial_k_alone_is_trial_k_in_sequence(method, drawn):
    for number in (0, 1, 63, 64, 200):
        assert suggestion(SPACE, number, method, seed=3) == drawn[method][number]


def test_a_trial_of_a_grid_alone_is_that_of_the_sequence():
    assert suggestion(SPACE, 7, "grid", points=2) == take(8, grid(SPACE, points=2))[7]


@pytest.mark.parametrize("method", DRAWS)
def test_seeds_draw_different_trials(method, drawn):
    assert take(5, DRAWS[method](SPACE, seed=4)) != drawn[method][:5]


# Grids


def test_a_grid_is_the_product_in_order():
    space = SearchSpace(
        {
            "optimizer": Choice(["muon", "adamw"]),
            "n_layers": Int(1, 3),
            "dropout": Float(0.1, 0.3, step=0.1),
        }
    )
    product = itertools.product(["muon", "adamw"], [1, 2, 3], [0.1, 0.2, 0.3])

    assert [tuple(t.values()) for t in grid(space)] == list(product)


def test_a_grid_has_only_active_branches_once():
    space = SearchSpace(
        {
            "optimizer": Choice(["muon", "adamw"]),
            "muon_momentum": When("optimizer", "muon", Choice([0.9, 0.95])),
            "beta2": When("optimizer", "adamw", Choice([0.9, 0.95, 0.99])),
        }
    )

    assert [list(t.values()) for t in grid(space)] == [
        ["muon", 0.9],
        ["muon", 0.95],
        ["adamw", 0.9],
        ["adamw", 0.95],
        ["adamw", 0.99],
    ]


def test_a_condition_may_stand_on_a_condition():
    space = SearchSpace(
        {
            "scheduler": Choice(["wsd", "constant"]),
            "decay_fraction": When("scheduler", "wsd", Choice([0.2, 0.4])),
            "min_lr_ratio": When("decay_fraction", 0.4, Choice([0.0, 0.1])),
        }
    )

    assert [list(t.values()) for t in grid(space)] == [
        ["wsd", 0.2],
        ["wsd", 0.4, 0.0],
        ["wsd", 0.4, 0.1],
        ["constant"],
    ]


@pytest.mark.parametrize(
    ("parameter", "points", "values"),
    [
        pytest.param(Float(0.0, 1.0), 3, [0.0, 0.5, 1.0], id="a range"),
        pytest.param(Float(0.001, 0.1, log=True), 3, [0.001, 0.01, 0.1], id="a log range"),
        pytest.param(Float(0, 1, step=0.25), 2, [0.0, 1.0], id="a lattice thinned out"),
        pytest.param(Float(0.0, 0.3, step=0.1), None, [0.0, 0.1, 0.2, 0.3], id="a lattice"),
        pytest.param(Int(1, 4), None, [1, 2, 3, 4], id="whole numbers"),
        pytest.param(Int(1, 64, log=True), 4, [1, 4, 16, 64], id="whole numbers in the log"),
        pytest.param(Int(1, 3), 9, [1, 2, 3], id="more points than values"),
        pytest.param(Choice([3, 1]), 5, [3, 1], id="choices"),
    ],
)
def test_points_of_a_grid_include_both_ends(parameter, points, values):
    assert parameter.grid(points) == pytest.approx(values, rel=1e-12)


def test_points_may_be_given_by_name():
    space = SearchSpace({"weight_decay": Float(0, 1), "n_layers": Int(1, 9)})

    assert len(list(grid(space, points={"weight_decay": 2}))) == 18
    assert len(list(grid(space, points=3))) == 9


@pytest.mark.parametrize(
    ("points", "words"),
    [
        pytest.param(None, "weight_decay: Float.* has no step", id="none"),
        pytest.param(1, "two or more", id="one"),
        pytest.param(2.5, "two or more", id="a fraction"),
        pytest.param({"weight_decay": 2, "beta1": 2}, "beta1, which is not drawn", id="not there"),
    ],
)
def test_points_that_do_not_fit_are_refused(points, words):
    with pytest.raises(ConfigError, match=words):
        grid(SearchSpace({"weight_decay": Float(0, 1)}), points=points)


# What is refused


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        pytest.param({}, "space is empty", id="nothing"),
        pytest.param({"lerning_rate": Float(0.1, 0.2)}, "Did you mean learning_rate", id="typo"),
        pytest.param({"lr": Float(0.1, 0.2)}, "lr is not a setting. Use learning_rate", id="lr"),
        pytest.param({"wd": Float(0.1, 0.2)}, "Use weight_decay", id="wd"),
        pytest.param({"seed": Int(1, 5)}, "seed is never searched", id="seed"),
        pytest.param({"random_seed": Int(1, 5)}, "never searched", id="legacy seed"),
        pytest.param({"model.seed": Int(1, 5)}, "never searched", id="the model's seed"),
        pytest.param({"source": Choice(["a"])}, "all trials share the data", id="data"),
        pytest.param({"output_dir": Choice(["a"])}, "Set it in training_config", id="folder"),
        pytest.param({"log_every": Int(1, 5)}, "does not change what", id="logging"),
        pytest.param({3: Int(1, 5)}, "3 is a int, but the name", id="no name"),
        pytest.param({"model.": Int(1, 5)}, "a keyword of the model's factory", id="no keyword"),
        pytest.param({"learning_rate": Float(0.1, 2)}, "learning_rate is 2.0, but", id="range"),
        pytest.param({"batch_size": Int(0, 8)}, "at least 1", id="low"),
        pytest.param({"n_layers": Float(1, 3)}, "n_layers is a whole number.* Use Int", id="kind"),
        pytest.param({"n_layers": Choice([1, 2.5])}, "n_layers is 2.5", id="a choice"),
        pytest.param({"optimizer": Choice(["sgd"])}, "one of 'muon', 'adamw'", id="a word"),
        pytest.param({"optimizer": Int(1, 2)}, "optimizer is 1", id="number for a word"),
        pytest.param({"tie_embeddings": Int(0, 1)}, "True or False", id="number for a switch"),
        pytest.param({"n_layers": Const(0)}, "n_layers is 0", id="constant"),
        pytest.param({"n_layers": (1, 3)}, "SearchSpace.from_dict", id="a tuple"),
        pytest.param(
            {"muon_momentum": When("optimizer", "muon", Float(0.5, 0.9))},
            "does not stand above it",
            id="no parent",
        ),
        pytest.param(
            {
                "optimizer": Choice(["adamw"]),
                "muon_momentum": When("optimizer", "muon", Float(0.5, 0.9)),
            },
            "some of \\['adamw'\\] are wanted",
            id="a value that the parent never has",
        ),
        pytest.param(
            {"dropout": Float(0, 0.5), "beta1": When("dropout", 0.1, Float(0.5, 0.9))},
            "whole numbers or choices are wanted",
            id="a parent without values",
        ),
        pytest.param(
            {"batch_size": Derived("n_layers * 4"), "n_layers": Int(1, 2)},
            "reads n_layers .* only names above it",
            id="order",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_with_the_reason(parameters, words):
    with pytest.raises(ConfigError, match=words):
        SearchSpace(parameters)


def test_all_faults_of_a_space_come_at_once():
    parameters = {"lr": Float(0.1, 0.2), "seed": Int(1, 2), "n_layers": Int(0, 3)}
    with pytest.raises(ConfigError) as raised:
        SearchSpace(parameters, [Constraint("n_head > 1")])

    assert len(raised.value.faults) == 4
    assert all(fault in str(raised.value) for fault in raised.value.faults)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: Float(1, 1), "no room between its bounds", id="empty"),
        pytest.param(lambda: Float(2, 1), "no room between its bounds", id="swapped"),
        pytest.param(lambda: Float(0, 1, log=True), "0 has no logarithm", id="log of zero"),
        pytest.param(lambda: Float(1, 2, log=True, step=1), "log and step", id="log and step"),
        pytest.param(lambda: Int(1, 9, log=True, step=2), "log and step", id="whole log and step"),
        pytest.param(lambda: Float(0, 1, step=0.3), "in whole steps", id="a lattice that misses"),
        pytest.param(lambda: Int(1, 4, step=2), "in whole steps", id="whole steps that miss"),
        pytest.param(lambda: Int(1, 4, step=0), "in whole steps", id="no step"),
        pytest.param(lambda: Float(0, math.inf), "inf, but finite numbers", id="infinite"),
        pytest.param(lambda: Float("1", 2), "'1', but finite numbers", id="text"),
        pytest.param(lambda: Int(1, 2.5), "2.5, but whole numbers", id="fraction"),
        pytest.param(lambda: Int(True, 2), "True, but whole numbers", id="truth"),
        pytest.param(lambda: Choice([]), "one or more are wanted", id="no choice"),
        pytest.param(lambda: Choice([1, 1]), "each once", id="a choice twice"),
        pytest.param(lambda: Choice("ab"), "a list of values", id="a word"),
        pytest.param(lambda: Choice([object()]), "of type object", id="no plain value"),
        pytest.param(lambda: Choice([math.nan]), "Use plain values", id="nan"),
        pytest.param(lambda: Const({1, 2}), "of type set", id="a set"),
        pytest.param(lambda: When("a", 1, 3), "When got 3", id="no parameter"),
        pytest.param(lambda: Derived(lambda x: x), "text is wanted", id="a function"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize("method", DRAWS)
def test_a_space_that_is_used_up_says_how_and_what_to_do(method):
    space = SearchSpace(
        {"n_layers": Int(1, 4)}, [Constraint("n_layers % 2 == 0", "layers come in pairs")]
    )
    trials = DRAWS[method](space, 0)

    assert sorted(t["n_layers"] for t in take(2, trials)) == [2, 4]
    with pytest.raises(ConfigError, match=r"no more than 2 .* break layers come in pairs"):
        next(trials)


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="'tpe', but the methods are"):
        suggestions(SPACE, "tpe")


# Plain data


def test_a_space_comes_back_from_json_and_draws_the_same():
    again = SearchSpace.from_dict(json.loads(json.dumps(SPACE.to_dict())))

    assert again == SPACE
    assert take(20, random(again, 1)) == take(20, random(SPACE, 1))


def test_the_order_of_names_counts():
    first, second = ("n_layers", Int(1, 3)), ("n_heads", Int(1, 2))

    assert SearchSpace(dict([first, second])) != SearchSpace(dict([second, first]))


numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


@given(numbers, numbers, st.floats(0, 1, exclude_max=True))
def test_a_draw_never_leaves_its_range(low, high, share):
    low, high = sorted((low, high))
    if low < high:
        assert low <= Float(low, high).at(share) <= high
    if 0 < low < high:
        assert low <= Float(low, high, log=True).at(share) <= high


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_whole_draw_never_leaves_its_range(low, width, share):
    for parameter in (Int(low, low + width), Int(low, low + width, log=True)):
        value = parameter.at(share)
        assert type(value) is int and low <= value <= low + width


@pytest.mark.parametrize(
    ("name", "value", "parameter"),
    [
        pytest.param("learning_rate", (1e-4, 1e-2), Float(1e-4, 1e-2, log=True), id="log"),
        pytest.param("weight_decay", (1e-6, 1), Float(1e-6, 1, log=True), id="log of decay"),
        pytest.param("weight_decay", (0.0, 0.1), Float(0.0, 0.1), id="not with a zero"),
        pytest.param("dropout", (0.1, 0.5), Float(0.1, 0.5), id="linear"),
        pytest.param("batch_size", (4, 16), Int(4, 16), id="whole"),
        pytest.param("epochs", (1, 3), Float(1, 3), id="a setting that is no whole number"),
        pytest.param("model.width", (8, 64), Int(8, 64), id="the bounds decide"),
        pytest.param("model.gain", (0.5, 2), Float(0.5, 2), id="one bound is a fraction"),
        pytest.param("optimizer", ["muon"], Choice(["muon"]), id="list"),
        pytest.param("max_steps", 50, Const(50), id="value"),
        pytest.param("n_layers", Int(1, 2), Int(1, 2), id="parameter"),
        pytest.param("n_layers", {"kind": "int", "low": 1, "high": 2}, Int(1, 2), id="plain"),
    ],
)
def test_the_shorthand_reads_tuples_lists_and_values(name, value, parameter):
    assert SearchSpace.from_dict({name: value}).parameters == {name: parameter}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param({"lr": (1e-5, 1e-3)}, "lr is not a setting. Use learning_rate", id="lr"),
        pytest.param({"lr": (1, 2, 3)}, "Use learning_rate", id="lr that is no range either"),
        pytest.param({"dropout": (1, 2, 3)}, "a range with two bounds", id="three bounds"),
        pytest.param({"batch_size": (4.5, 8)}, "whole numbers are wanted", id="half a sequence"),
        pytest.param({"dropout": ("a", "b")}, "finite numbers", id="words"),
        pytest.param({"n_layers": {"kind": "normal"}}, "kind is 'normal'", id="kind"),
        pytest.param({"n_layers": {"kind": "int", "low": 1}}, "'high'", id="a bound missing"),
        pytest.param({"n_layers": {"kind": "int", "low": 1, "high": 2, "q": 1}}, "'q'", id="more"),
        pytest.param([("n_layers", 1)], "names with ranges", id="no mapping"),
        pytest.param({"parameters": {"n_layers": 1}, "constraints": ["x"]}, "'x'", id="constraint"),
    ],
)
def test_a_shorthand_that_cannot_be_read_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        SearchSpace.from_dict(values)


def test_a_space_shows_how_it_is_written():
    space = SearchSpace({"n_heads": Int(1, 2)}, [Constraint("n_heads < 3", "few")])
    written = (
        "SearchSpace({\n    'n_heads': Int(1, 2),\n}, [Constraint('n_heads < 3', reason='few')])"
    )

    assert repr(space) == written
    assert "few (n_heads &lt; 3)" in space._repr_html_()


def test_a_space_needs_neither_torch_nor_pandas():
    code = (
        "import sys, helpers; helpers.SearchSpace.from_dict({'n_layers': (1, 2)}).at([0.5]); "
        "print(sorted({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


# Expressions


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("2 + 3 * a", 14, id="arithmetic"),
        pytest.param("-a // 3 % 5 ** 2", 23, id="signs and powers"),
        pytest.param("1 < a <= 4", True, id="a chain"),
        pytest.param("a in [1, 4] and not b", True, id="logic"),
        pytest.param("'x' if c == 'muon' else 'y'", "x", id="a choice"),
        pytest.param("max(1, min(a, 3)) + int(sqrt(16)) + round(2.4)", 9, id="functions"),
        pytest.param("model.width * 2", 20, id="a name with a dot"),
    ],
)
def test_an_expression_is_computed(text, value):
    values = {"a": 4, "b": False, "c": "muon", "model.width": 10}

    assert evaluate(text, values) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "open('x')",
        "a.b.c",
        "a[0]",
        "[x for x in a]",
        "lambda: 1",
        "(a := 1)",
        "max(*a)",
        "max(a, key=b)",
        "a b",
        "",
        "a" * 400,
        "f'{a}'",
        "b'a'",
        "a @ b",
    ],
)
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ConfigError):
        names_in(text)


@pytest.mark.parametrize("text", ["1 / a", "2 ** 9999", "'a' * 9999", "c + 1", "(0 - 8) ** 0.5"])
def test_what_cannot_be_computed_says_with_which_values(text):
    with pytest.raises(ConfigError, match="cannot be computed"):
        evaluate(text, {"a": 0, "c": "muon"})


def test_the_names_of_an_expression_are_found():
    assert names_in("max(a, 2) % model.width if b else 3") == {"a", "b", "model.width"}


def test_settings_can_be_checked_one_by_one():
    for name, field in TrainingConfig.model_fields.items():
        check_value(name, field.default)
    with pytest.raises(ConfigError, match=r"dropout is 1, but a finite number .* below 1"):
        check_value("dropout", 1)
