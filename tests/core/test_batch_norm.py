"""Batch normalisation of a batch of one row."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from multimodal.core import registry
from multimodal.core.batch_norm import use_running_stats_for_single_values

CASES: list[tuple[str, str, dict[str, Any], Any]] = [
    ("image", "cnn", {"size": 16}, np.zeros((16, 16), dtype=np.uint8)),
    ("graph", "molecule", {"width": 16, "layers": 2, "bits": 32}, "CCO"),
    ("image", "drawing", {"size": 16}, "CCO"),
]


@pytest.mark.parametrize(("modality", "name", "settings", "value"), CASES, ids=[case[1] for case in CASES])
def test_an_encoder_trains_on_a_batch_of_one(modality: str, name: str, settings: dict[str, Any], value: Any) -> None:
    encoder = registry.create(modality, name, **settings).train()
    features = encoder(**encoder.processor.collate([encoder.processor(value)]))
    features.sum().backward()
    assert features.shape == (1, encoder.width)
    assert all(module.training for module in encoder.modules())


def test_one_value_per_channel_uses_the_running_statistics_and_does_not_change_them() -> None:
    norm = nn.BatchNorm1d(2, affine=False)
    use_running_stats_for_single_values(norm)
    use_running_stats_for_single_values(norm)
    norm(torch.tensor([[0.0, 2.0], [2.0, 6.0]]))
    before = copy.deepcopy(norm.state_dict())
    copied = pickle.loads(pickle.dumps(norm))
    for one in (norm, copied):
        row = one(torch.tensor([[1.0, 1.0]]))
        mean, variance = one.running_mean, one.running_var
        assert mean is not None
        assert variance is not None
        assert torch.allclose(row, (1 - mean) / (variance + one.eps).sqrt())
        assert all(torch.equal(before[key], value) for key, value in one.state_dict().items())
        assert one.training


def test_a_norm_is_in_training_mode_after_an_error() -> None:
    norm = nn.BatchNorm1d(2)
    use_running_stats_for_single_values(norm)
    with pytest.raises(ValueError, match="expected 2D or 3D"):
        norm(torch.ones(1, 1, 1, 1))
    assert norm.training
