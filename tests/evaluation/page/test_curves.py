"""Training curves are read from a run's logs, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimodal.evaluation.page.curves import _read, _thin, training_curves


def log(run: Path, version: int, *lines: str) -> Path:
    folder = run / "logs" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("\n".join(["step,train/loss,val/recall@1", *lines]) + "\n")
    return folder / "metrics.csv"


def test_a_later_start_continues_an_earlier_one(tmp_path: Path) -> None:
    log(tmp_path, 10, "20,1.5,", "30,1.0,")
    log(tmp_path, 9, "10,3.0,", "20,2.0,", "19,,0.25")
    loss, recall = training_curves(tmp_path)
    assert (loss.title, recall.title) == ("Loss", "Validation, mean recall@1 of all pairs")
    assert loss.svg.count("<circle") == 3  # steps 10, 20 and 30
    assert recall.svg.count("<circle") == 1


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    path = log(tmp_path, 0, "10,nan,", "x,1,2", "20,,,,", "30,inf,0.5", "40,2.0,")
    assert list(_read(path)) == [(30, "val/recall@1", 0.5), (40, "train/loss", 2.0)]
    path.write_bytes(b"\xff\x00\xfe")
    assert training_curves(tmp_path) == []
    assert training_curves(tmp_path / "nothing") == []


@pytest.mark.parametrize("number", [0, 1, 400, 401, 5000])
def test_long_lines_are_means_of_neighbours(number: int) -> None:
    found = _thin({step: float(step) for step in range(number)})
    assert len(found) <= 400
    if number:
        assert found[-1][0] == number - 1
        assert min(v for _, v in found) >= 0
        assert sum(v for _, v in found) / len(found) == pytest.approx((number - 1) / 2, rel=0.01)
