"""Every seeded defect is seen at its cell, and nothing that only looks like one is flagged."""

from collections import Counter

import pytest

from tests.defects.check import CASES, check_all


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    found = check_all(tmp_path_factory.mktemp("defects"))
    return {result.case.file_name: result for result in found}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_case(results, case):
    result = results[case.file_name]

    assert result.is_right, result.why()


def test_corpus_is_large_and_every_class_has_two():
    defects = Counter(case.kind for case in CASES if case.codes)
    others = Counter(case.kind for case in CASES if not case.codes)

    assert sum(defects.values()) >= 60 and min((defects + others).values()) >= 2
    assert len({case.file_name for case in CASES}) == len(CASES)
