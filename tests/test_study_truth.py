"""Studies where the truth is known: changes of a network, samples of which the evidence is proven, tables by metric."""

import pytest
import torch

from lightning_xai.data import TrojanDataModule
from lightning_xai.studies.engine import run_study
from lightning_xai.studies.report import study_report
from lightning_xai.studies.study import study_of
from lightning_xai.studies.subjects import subject
from tests.small import MINE, carried_study

EASY = {
    "trainer.max_epochs": 1,
    "data.init_args.num_train": 1200,
    "data.init_args.num_test": 40,
    "data.init_args.signal": 2.0,
}
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # between Lightning and jsonargparse
    "ignore:.*does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:.*isinstance.treespec",
)


@pytest.fixture(scope="module")
def study():
    given = carried_study("truth")
    networks = {name: given.networks[name] for name in ("linear white", "linear correlated, MLP")}
    methods = {name: given.methods[name] for name in ("gradient", "integrated gradients")}
    claims = [{"title": "Better?", "metrics": ["AUROC"], "pairs": ["gradient > edges"]}]
    small = {"num_draws": 2, "num_samples": 6, "level_samples": None, "changes": EASY, "claims": claims}
    return given.changed({"networks": networks, "methods": methods, **small})


def test_samples_are_those_of_which_the_network_uses_the_evidence(lab, study):
    """Right before the swap and something else after it, by hand; and a network's own changes are made."""
    found = subject(lab, study, "linear correlated, MLP")
    network, data = found.network.model, found.network.data
    assert type(network.network).__name__ == "MLP"
    assert (data.background, data.signal, len(data.intervened("test", "swap"))) == ("correlated", 2.0, 40)
    clean, swapped = data.load("test"), data.intervene("test", "swap")
    with torch.no_grad():
        before, after = (network(data.normalize(part.images)).argmax(1) for part in (clean, swapped))
    used = [i for i, label in enumerate(clean.labels) if before[i] == label and after[i] != label]
    assert found.proven == (len(used), 40)
    assert len(found.first.index) == min(6, len(used))
    assert set(found.first.index.tolist()) <= set(used)
    assert torch.equal(found.first.masks, clean.masks["evidence"][found.first.index])
    assert torch.equal(found.target, clean.labels[found.first.index])


def test_tables_by_metric_have_the_networks_across(lab, study):
    results = run_study(lab, study)
    report = study_report(study, results, 0, "32-true")
    titles = [table.title for table in report.tables]
    assert titles == [*study.metrics, "Better? AUROC", "Networks"]
    by_title = dict(zip(titles, report.tables, strict=True))
    assert by_title["AUROC"].columns[2:] == tuple(f"{name} ↑" for name in study.networks)
    assert by_title["Better? AUROC"].columns == ("claim", *study.networks)
    for place, (name, result) in enumerate(results.items()):
        gain = result.values("gradient", "AUROC").mean() - result.values("edges", "AUROC").mean()
        ((_, *cells),) = by_title["Better? AUROC"].rows
        assert float(cells[place].split()[0]) == pytest.approx(gain, abs=1e-4)
        number, of = result.subject.proven
        assert (by_title["Networks"].rows[place][0], by_title["Networks"].rows[place][-1]) == (
            name,
            f"{number} of {of}",
        )


def test_data_of_known_truth_are_embedded_or_where_the_lab_has_them(lab):
    two = lab.data("two_digits", {"data.init_args.num_train": 20, "data.init_args.num_test": 5})
    assert (two.digits, two.root) == ("embedded", "data")
    trojan = lab.data("two_digits", {"data.class_path": "lightning_xai.data.TrojanDataModule"})
    assert isinstance(trojan, TrojanDataModule)
    assert lab.data("tetrominoes").background == "white"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": ["quickstart"]}, "`proven`: the data of quickstart must be of known truth, such as Tetromino"),
        (
            {"networks": {"photographs": {"changes": {"seed_everything": 1}}}},
            "`networks`: photographs is trained by others and takes `weights`, got `changes`",
        ),
    ],
)
def test_what_cannot_be_proven_is_refused_before_any_network_is_trained(changes, message, lab, monkeypatch):
    monkeypatch.setattr("lightning_xai.studies.lab.trained", None)
    with pytest.raises(ValueError, match=message):
        run_study(lab, study_of({**MINE, "proven": True, **changes}))


def test_a_network_that_uses_no_evidence_is_refused(lab, study):
    blind = study.changed({"changes": {**EASY, "trainer.max_epochs": 0}})
    with pytest.raises(ValueError, match="`proven`: of none of 40 test samples does linear white use the evidence"):
        subject(lab, blind, "linear white")
