"""Labels that hold together: each positive one is a row of its own, by every door, in files and in comparisons."""

import pandas as pd
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback, RandomizationCallback
from lightning_xai.experiments import Run, compare_methods
from lightning_xai.metrics import DeletionAUC
from lightning_xai.results.scores import COLUMNS, Scores
from lightning_xai.results.store import append_scores, append_unit, read_samples, read_scores

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]

IMAGES = torch.rand(6, 1, 3, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1], [0, 0, 0]])
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
PAIRS = [(row, label) for row in range(6) for label in range(3) if LABELS[row, label]]
OUTPUT = lx.outputs.Logit(multi_label=True)
HOW = {
    "methods": {"smooth": lx.smooth_grad(num_draws=3)},
    "metrics": {"deletion": DeletionAUC(3, baseline=0.0)},
    "output": OUTPUT,
    "seed": 5,
}


class Network(nn.Sequential):
    def __init__(self, *parts):
        super().__init__(nn.Flatten(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 3))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for place in (1, 3):
                self[place].reset_parameters()


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = Network()

    def forward(self, x):
        return self.network(x)

    def validation_step(self, batch, _):
        pass


def one_by_one():
    """Each label of each sample evaluated alone."""
    return [
        float(lx.evaluate(Network(), IMAGES[[i]], c, index=torch.tensor([i]), **HOW).scores["smooth"]["deletion"])
        for i, c in PAIRS
    ]


def loader(labels=LABELS, size=4):
    return DataLoader(TensorDataset(IMAGES, labels), size)


def validated(folder, labels=LABELS, **options):
    callback = AttributionCallback(
        **{**HOW, "target": "positive", "controls": False, "panel_size": 3, "bounds": (0.0, 1.0), **options}
    )
    trainer = Trainer(default_root_dir=folder, logger=False, callbacks=[callback], **QUIET)
    trainer.validate(Module(), loader(labels), verbose=False)
    return callback


@pytest.mark.parametrize("kind", [torch.int64, torch.float32, torch.bool])
def test_each_positive_label_is_a_row_with_its_samples_noise(kind):
    found = lx.evaluate(Network(), IMAGES, LABELS.to(kind), keep_attributions=3, batch_size=2, **HOW)
    assert list(zip(found.index.tolist(), found.targets.tolist(), strict=True)) == PAIRS
    assert_close(found.scores["smooth"]["deletion"].tolist(), one_by_one(), rtol=1e-5, atol=1e-6)
    assert torch.equal(found.images[:2], IMAGES[[0, 0]])
    table = found.to_scores().to_dataframe()
    assert list(zip(table["sample"], table["target"], strict=True)) == PAIRS * 2  # with the gradients


def test_the_callback_explains_each_of_them_and_leaves_out_samples_without_any(tmp_path, caplog):
    callback = validated(tmp_path, LABELS.float())
    found = read_scores(tmp_path / "xai" / "scores").select(metric="deletion")
    assert [(row.sample, row.target) for row in found] == PAIRS
    assert_close(found.table["value"].tolist(), one_by_one(), rtol=1e-5, atol=1e-6)
    assert callback.evaluation.target.tolist() == [1, 2, 0]
    assert "leaves 2 samples out, which have no positive label" in caplog.text


@pytest.mark.parametrize("size", [1, 4])
def test_a_stream_is_the_same_in_parts_and_gone_on_with(tmp_path, size):
    data, options = loader(size=size), {"target": "positive", "batch_size": size}
    lx.evaluate_stream(Network(), data, tmp_path, **options, **HOW, shard=(1, 2))
    second = lx.evaluate_stream(Network(), data, tmp_path, **options, **HOW, shard=(2, 2))
    assert (second.num_now, second.num_left_out, second.num_finished) == (2, 1, 5)
    again = lx.evaluate_stream(Network(), data, tmp_path, **options, **HOW)
    assert (again.num_now, again.num_left_out, again.num_finished, again.num_samples) == (0, 2, 6, 6)
    found = again.scores().select(metric="deletion").table.sort_values(["sample", "target"])
    assert list(zip(found["sample"], found["target"], strict=True)) == PAIRS
    assert_close(found["value"].tolist(), one_by_one(), rtol=1e-5, atol=1e-6)
    known = again.samples()
    assert list(zip(known["row"], known["target"], strict=True)) == PAIRS
    more = {**HOW, "methods": {**HOW["methods"], "gradient": lx.Gradient()}}
    other = LABELS.clone()
    other[0, 0] = 1  # one label more of a sample that is finished
    with pytest.raises(ValueError, match=r"sample 0 \(row 0 of the data\) is not what it was"):
        lx.evaluate_stream(Network(), loader(other), tmp_path, **options, **more)


def test_rows_of_one_index_may_have_different_labels_but_not_the_same_one(tmp_path):
    def batches(labels):
        index = torch.tensor([0, 0, 1, 1, 2, 2])
        return [{"image": IMAGES, "label": torch.tensor(labels), "index": index}]

    found = lx.evaluate_stream(Network(), batches([0, 1, 0, 2, 1, 2]), tmp_path / "a", **HOW)
    assert [(row.sample, row.target) for row in found.scores().select(metric="deletion")] == [
        *((0, 0), (0, 1), (1, 0)),
        *((1, 2), (2, 1), (2, 2)),
    ]
    with pytest.raises(ValueError, match="rows 0 and 1 have the same index, 0"):
        lx.evaluate_stream(Network(), batches([0, 0, 0, 2, 1, 2]), tmp_path / "b", **HOW)
    with pytest.raises(ValueError, match="have the same index"):
        lx.evaluate_stream(Network(), batches([0, 1, 0, 2, 1, 2]), tmp_path / "c", "prediction", **HOW)


def test_units_that_differ_in_the_labels_of_a_sample_are_two_data_sets(tmp_path):
    for part, targets in enumerate(([0, 1], [0])):
        known = {name: [4] * len(targets) for name in ("sample", "row")} | {"target": targets, "predicted": targets}
        known |= {"probability": [0.5] * len(targets), "fingerprint": [f"f{target}" for target in targets]}
        scores = Scores.from_rows([("test", 0, 0, "m", "s", 4, 0.5, target) for target in targets])
        append_unit(tmp_path / "scores", scores, {"m": {"s": "key"}}, known, {})
        if not part:
            assert read_samples(tmp_path / "scores")["target"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="has two contents of sample 4"):
        read_samples(tmp_path / "scores")


# Pairs


def run_of(rows, name="run"):
    return Run(name, Scores.from_rows(("test", 0, 0, m, "gini", i, v, t) for m, i, v, t in rows), {"gini": True})


def test_methods_are_paired_by_sample_and_target():
    """In another order of the rows; of the pairs that both have."""
    better = [("b", *pair) for pair in ((1, 2.0, 0), (0, 4.0, 1), (0, 1.0, 0), (1, 9.0, 2))]
    (found,) = compare_methods([run_of([("a", 0, 0.0, 0), ("a", 0, 1.0, 1), ("a", 1, 1.5, 0), *better])]).metrics
    assert (list(found.samples), list(found.targets)) == ([0, 0, 1], [0, 1, 0])
    assert {method.method: list(method.values) for method in found.methods} == {
        "a": [0.0, 1.0, 1.5],
        "b": [1.0, 4.0, 2.0],
    }


def test_runs_are_paired_by_target_too_where_one_has_several_and_by_sample_alone_else():
    several = run_of([("m", 0, 1.0, 0), ("m", 0, 2.0, 1), ("m", 1, 3.0, 1)], "several")
    single = run_of([("m", 0, 5.0, 1), ("m", 1, 6.0, 0)], "single")
    other = run_of([("m", 0, 7.0, 0), ("m", 1, 8.0, 0)], "other")
    (found,) = compare_methods([several, single]).metrics
    assert [list(method.values) for method in found.methods] == [[2.0], [5.0]]
    (found,) = compare_methods([single, other]).metrics
    assert (list(found.samples), list(found.targets)) == ([0, 1], [])


def test_two_evaluations_are_not_taken_for_two_targets():
    twice = Scores.from_rows([("test", epoch, 0, "m", "gini", 0, 0.5, epoch) for epoch in (0, 1)])
    with pytest.raises(ValueError, match="two scores of sample 0"):
        twice.by_sample()


# Files


def test_files_without_targets_are_read(tmp_path):
    scores = Scores.from_rows([("test", 0, 1, "m", "gini", i, i / 3) for i in range(4)])
    assert set(scores.table["target"]) == {-1}
    former = scores.to_dataframe()[list(COLUMNS)[:-1]]
    former.to_csv(tmp_path / "scores.csv", index=False)
    former.to_parquet(tmp_path / "alone.parquet")
    part = append_scores(tmp_path / "parts", scores)
    former.to_parquet(part)
    for path in ("scores.csv", "alone.parquet"):
        assert Scores.load(tmp_path / path) == scores
    assert read_scores(tmp_path / "parts") == read_scores(tmp_path / "parts", target=-1, stage="test") == scores
    assert Scores(former) == scores
    pd.testing.assert_frame_equal(former, scores.to_dataframe()[list(former)])


# Refusals


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS * 2, "each 0 or 1; got .* with other numbers"),
        (LABELS[:, 0], r"\(batch, classes\), each 0 or 1; got torch.int64 of shape \(6,\)"),
        (LABELS[:, :2], r"must be \(batch, 3\), one for each of the outputs of the model; they have 2 columns"),
        (torch.zeros_like(LABELS), "None of the 6 samples has a positive label"),
    ],
)
def test_labels_that_cannot_be_explained_together_are_refused(tmp_path, labels, message):
    with pytest.raises(ValueError, match=message):
        validated(tmp_path, labels)


def test_refusals():
    for output in ("logit", "probability", "margin"):  # a softmax, unless labels that hold together are declared
        with pytest.raises(ValueError, match=r"Declare them: lightning_xai.outputs.Logit\(multi_label=True\)"):
            AttributionCallback(target="positive", output=output)
        with pytest.raises(ValueError, match="one label excludes the others"):
            lx.evaluate(Network(), IMAGES, LABELS, **{**HOW, "output": output})
    with pytest.raises(ValueError, match=r'"positive", but `output` .* has none'):
        AttributionCallback(target="positive", output=lx.outputs.At(0))
    with pytest.raises(ValueError, match='`target` must be "label", "prediction" or a class, got "positive"'):
        RandomizationCallback(target="positive")
    with pytest.raises(ValueError, match=r"`target` has labels, .* but `output` At\(index=\(0,\)\) has none"):
        lx.evaluate(Network(), IMAGES, LABELS, **{**HOW, "output": lx.outputs.At(0)})
    with pytest.raises(ValueError, match="no label of any sample holds"):
        lx.evaluate(Network(), IMAGES, torch.zeros_like(LABELS), **HOW)
    with pytest.raises(ValueError, match=r"must be \(batch, 3\)"):
        lx.evaluate(Network(), IMAGES, LABELS[:, :2], **HOW)
