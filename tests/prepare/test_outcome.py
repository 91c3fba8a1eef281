"""The result of ``prepare`` prints as sentences."""

from __future__ import annotations

from multimodal.prepare.outcome import Outcome


def test_an_outcome_shows_its_counts_and_warnings() -> None:
    outcome = Outcome(
        rows_in=1210,
        rows_out=1200,
        rejects=3,
        balanced_out=1,
        duplicates=5,
        near_duplicates=2,
        splits={"train": 1100, "test": 100},
        reasons={"balanced": 1, "empty row": 2},
        warnings=["The column title is in one split only."],
    )
    assert repr(outcome).splitlines() == [
        "1,210 rows in, 1,200 out (train 1,100, test 100); 5 duplicates, 2 near duplicates, 3 left out (1 to balance, 2 empty)",
        "warning: The column title is in one split only.",
    ]
    assert outcome.summary == str(outcome).splitlines()[0]
