"""``train --search``: trials are counted over all runs, and the best of them makes the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from synthetic import make_data
from two_tower.errors import UserError
from two_tower.features import TrainingData
from two_tower.trainer.options import TrainOptions
from two_tower.trainer.search import CHOICE, RECIPE
from two_tower.trainer.train import fit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return make_data(users=40, items=30, each=10, groups=3)


def studies(path: Path) -> list[optuna.Study]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    return [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]


def test_a_search_resumes_and_its_best_trial_makes_the_model(data: TrainingData, tmp_path: Path) -> None:
    path = tmp_path / "kept" / "study.sqlite"
    fit(data, TrainOptions(search=2, study=str(path)))
    (study,) = studies(path)
    before = [trial.params for trial in study.trials]
    assert len(before) == 2
    model = fit(data, TrainOptions(search=4, study=str(path)))
    (study,) = studies(path)
    assert [trial.params for trial in study.trials][:2] == before
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 4
    assert {name: model.hyperparameters[name] for name in CHOICE} == study.best_params
    assert model.hyperparameters["best_trial"] == study.best_trial.number
    assert study.best_value >= study.trials[0].values[0]  # the first is the result of the stepwise search
    again = fit(data, TrainOptions(search=4, study=str(path)))
    assert len(studies(path)[0].trials) == 4
    for name, value in model.item_tower.state_dict().items():
        assert torch.equal(value, again.item_tower.state_dict()[name]), name


def test_time_that_has_run_out_ends_the_search(data: TrainingData, tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    model = fit(data, TrainOptions(search=500, search_timeout=0.0, study=str(path)))
    assert model.hyperparameters["trials"] == len(studies(path)[0].trials) == 1


def test_search_tunes_gradients_and_starts_a_new_study_for_other_data(data: TrainingData, tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    model = fit(data, TrainOptions(search=2, epochs=1, study=str(path)))
    assert set(studies(path)[0].best_params) == set(CHOICE) | set(RECIPE)
    assert {name: model.hyperparameters["gradient"][name] for name in RECIPE} == {
        name: value for name, value in studies(path)[0].best_params.items() if name in RECIPE
    }
    rows = np.arange(len(data.user)) > 3
    fewer = replace(data, user=data.user[rows], item=data.item[rows], label=data.label[rows], time=data.time[rows])
    fit(fewer, TrainOptions(search=1, study=str(path)))
    assert sorted(len(study.trials) for study in studies(path)) == [1, 2]


def test_a_study_that_cannot_be_stored_is_an_error(data: TrainingData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the study cannot be kept"):
        fit(data, TrainOptions(search=1, study=str(tmp_path / "file" / "study.sqlite")))
    (tmp_path / "other").write_text("this is no database, whatever its name may be")
    with pytest.raises(UserError, match="the study cannot be kept"):
        fit(data, TrainOptions(search=1, study=str(tmp_path / "other")))
