"""The metric classes: what is kept, what is counted once, what is undefined, and what torchmetrics does with them."""

import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torchmetrics import MetricCollection

from lightning_xai.functional.complexity import effective_complexity, entropy, gini
from lightning_xai.functional.localization import (
    auroc,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_intersection,
)
from lightning_xai.functional.noise import inherent_noise
from lightning_xai.metrics import (
    Complexity,
    EffectiveComplexity,
    InherentNoise,
    LocalizationAUROC,
    PointingGame,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
    SampleMetric,
    Sparseness,
    TopKIntersection,
    mean_score,
    standard_error,
)
from tests.forked import finish, forked

GENERATOR = torch.Generator().manual_seed(0)
ATTRIBUTIONS = torch.randn(10, 3, 6, 6, generator=GENERATOR)
MASK = torch.rand(10, 6, 6, generator=GENERATOR) < 0.3
INPUTS = torch.rand(10, 3, 6, 6, generator=GENERATOR)
STD = torch.rand(10, 3, 6, 6, generator=GENERATOR)
BOUNDS = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)

SCORES = {
    Sparseness: gini(ATTRIBUTIONS),
    Complexity: entropy(ATTRIBUTIONS),
    EffectiveComplexity: effective_complexity(ATTRIBUTIONS),
    RelevanceRankAccuracy: relevance_rank_accuracy(ATTRIBUTIONS, MASK),
    RelevanceMassAccuracy: relevance_mass_accuracy(ATTRIBUTIONS, MASK),
    PointingGame: pointing_game(ATTRIBUTIONS, MASK),
    TopKIntersection: top_k_intersection(ATTRIBUTIONS, MASK, 9),
    LocalizationAUROC: auroc(ATTRIBUTIONS, MASK),
    InherentNoise: inherent_noise(INPUTS, STD, *BOUNDS),
}
REQUIRED = {TopKIntersection: {"k": 9}}
every_metric = pytest.mark.parametrize("metric_class", SCORES)


class Given(SampleMetric):
    """The scores are handed over: for the base class alone."""

    higher_is_better = True

    def update(self, scores, *, index=None):
        self.record(scores, index)


def collection():
    return MetricCollection({m.__name__: m(**REQUIRED.get(m, {})) for m in SCORES}, compute_groups=False)


def update(metrics, rows, index):
    """One batch with everything that a metric may ask for; a collection hands each metric what it names."""
    rows = list(rows)
    metrics.update(
        ATTRIBUTIONS[rows],
        mask=MASK[rows],
        inputs=INPUTS[rows],
        noise_std=STD[rows],
        bounds=BOUNDS,
        index=index,
    )


def given(*batches, index=None):
    metric = Given()
    for batch in batches:
        metric.update(torch.tensor(batch), index=None if index is None else torch.tensor(index))
    return metric


# Value, standard error, undefined scores


@every_metric
def test_every_metric_is_the_mean_of_its_function(metric_class):
    metrics = collection()
    update(metrics, range(7), index=torch.arange(7))
    update(metrics, range(7, 10), index=torch.arange(7, 10))
    scores, metric = SCORES[metric_class], metrics[metric_class.__name__]
    assert_close(metrics.compute()[metric_class.__name__], scores.mean())
    assert_close(metric.standard_error(), scores.std() / math.sqrt(10))
    assert_close(metric.per_sample(), (torch.arange(10), scores), rtol=1e-6, atol=0)


def test_undefined_scores_are_left_out_and_counted():
    metric = given([0.5, math.nan, 1.0, 0.0])
    assert_close(metric.compute(), torch.tensor(0.5))
    assert_close(metric.standard_error(), torch.tensor(0.5 / math.sqrt(3)))
    assert metric.num_undefined() == 1
    assert_close(metric.per_sample()[1], torch.tensor([0.5, math.nan, 1.0, 0.0]), equal_nan=True)


@pytest.mark.parametrize("scores", [[], [math.nan], [0.5], [0.5, math.nan]])
def test_fewer_than_two_scores_have_no_standard_error(scores):
    assert standard_error(torch.tensor(scores)).isnan()


def test_no_score_has_no_mean():
    assert mean_score(torch.tensor([])).isnan()
    assert mean_score(torch.tensor([math.nan])).isnan()


def test_a_metric_without_samples_is_undefined():
    metric = Given()
    with pytest.warns(UserWarning, match="called before the ``update`` method"):
        assert metric.compute().isnan()
    assert metric.standard_error().isnan()
    assert metric.num_undefined() == 0
    assert [len(column) for column in metric.per_sample()] == [0, 0]


def test_explainers_without_input_noise_score_zero():
    metric = InherentNoise()
    metric.update(ATTRIBUTIONS, inputs=INPUTS, noise_std=None, bounds=BOUNDS)
    assert_close(metric.per_sample()[1], torch.zeros(10), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        (Sparseness(offset=0.5), gini(ATTRIBUTIONS, 0.5)),
        (EffectiveComplexity(0.3), effective_complexity(ATTRIBUTIONS, 0.3)),
        (EffectiveComplexity(1.5, relative=False), effective_complexity(ATTRIBUTIONS, 1.5, relative=False)),
        (RelevanceRankAccuracy(absolute=False), relevance_rank_accuracy(ATTRIBUTIONS, MASK, absolute=False)),
        (RelevanceMassAccuracy(absolute=False), relevance_mass_accuracy(ATTRIBUTIONS, MASK, absolute=False)),
        (PointingGame(absolute=False), pointing_game(ATTRIBUTIONS, MASK, absolute=False)),
        (TopKIntersection(4, absolute=False), top_k_intersection(ATTRIBUTIONS, MASK, 4, absolute=False)),
        (LocalizationAUROC(absolute=False), auroc(ATTRIBUTIONS, MASK, absolute=False)),
    ],
)
def test_options_reach_the_functions(metric, scores):
    metrics = MetricCollection({"metric": metric}, compute_groups=False)
    update(metrics, range(10), index=None)
    assert_close(metrics["metric"].per_sample()[1], scores)


# Sample indices


def test_a_repeated_index_counts_once_where_it_came_first():
    metric = given([1.0, 2.0], [9.0, 9.0], index=[4, 3])
    assert_close(metric.per_sample(), (torch.tensor([3, 4]), torch.tensor([2.0, 1.0])))
    assert_close(metric.compute(), torch.tensor(1.5))


def test_without_an_index_samples_are_numbered_on_arrival():
    metric = given([1.0, 2.0], [1.0])
    assert_close(metric.per_sample(), (torch.arange(3), torch.tensor([1.0, 2.0, 1.0])))


def test_samples_without_an_index_follow_those_that_have_one():
    metric = given([1.0, 2.0], index=[7, 0])
    metric.update(torch.tensor([3.0, 4.0]))
    expected = torch.tensor([0, 7, 8, 9]), torch.tensor([2.0, 1.0, 3.0, 4.0])
    assert_close(metric.per_sample(), expected)


def test_forward_returns_the_batch_and_keeps_the_rest():
    metric = Given()
    assert_close(metric(torch.tensor([1.0, 2.0])), torch.tensor(1.5))
    assert_close(metric(torch.tensor([6.0])), torch.tensor(6.0))
    assert_close(metric.compute(), torch.tensor(3.0))


@pytest.mark.parametrize(("index", "shape"), [(torch.arange(3), r"\(3,\)"), (torch.zeros(2, 1).long(), r"\(2, 1\)")])
def test_an_index_of_the_wrong_length_is_refused(index, shape):
    with pytest.raises(ValueError, match=rf"`index` must have one entry for each of the 2 samples.*{shape}"):
        Given().update(torch.zeros(2), index=index)


def test_an_index_that_is_not_an_integer_is_refused():
    with pytest.raises(TypeError, match=r"`index` must be an int64 tensor .* got torch.float32"):
        Given().update(torch.zeros(2), index=torch.zeros(2))


def test_a_negative_offset_is_refused():
    with pytest.raises(ValueError, match=r"`offset` must be 0 or more.*got -1"):
        Sparseness(offset=-1.0)


def test_a_number_of_pixels_below_one_is_refused():
    with pytest.raises(ValueError, match="`k` must be at least 1, got 0"):
        TopKIntersection(k=0)


def test_a_threshold_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match=r"`threshold` must be in \[0, 1\).*got 2.0.*`relative`"):
        EffectiveComplexity(2.0)


# What torchmetrics and PyTorch do with a metric


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        SampleMetric()


def test_scores_are_kept_without_their_graph_in_float32():
    metric = Given()
    metric.update(torch.ones(2, dtype=torch.float64, requires_grad=True))
    (scores,) = metric.scores
    assert (scores.requires_grad, scores.dtype) == (False, torch.float32)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), SampleMetric.clone])
def test_copies_are_independent(duplicate):
    metric = given([1.0, 2.0])
    twin = duplicate(metric)
    twin.update(torch.tensor([6.0]))
    assert_close((metric.compute(), twin.compute()), (torch.tensor(1.5), torch.tensor(3.0)))


def test_the_device_of_a_metric_is_that_of_its_scores():
    metric = Given().to("meta")
    metric.update(torch.ones(2), index=torch.arange(2))
    assert (metric.scores[0].device.type, metric.index[0].device.type) == ("meta", "meta")


def test_a_checkpoint_carries_no_scores():
    assert given([1.0]).state_dict() == {}


def test_merging_two_metrics_counts_shared_samples_once():
    metric, other = given([1.0, 2.0], index=[0, 1]), given([2.0, 6.0], index=[1, 2])
    metric.merge_state(other)
    assert_close(metric.compute(), torch.tensor(3.0))


def test_scores_from_inference_mode_are_usable_outside_it():
    metric = Given()
    with torch.inference_mode():
        metric.update(torch.tensor([1.0, 2.0]))
    metric.update(torch.tensor([3.0]))
    assert_close(metric.compute(), torch.tensor(2.0))


# Several processes

SHARDS = {
    # As a DistributedSampler deals 5 samples to 2 processes, with the first repeated at the end.
    "padded": ([0, 2, 4], [1, 3, 0]),
    "uneven": ([0, 2, 4, 5, 6, 7], [1, 3]),
    "nothing for one": ([0, 1, 2], []),
    "nothing for the first": ([], [0, 1, 2]),
    "nothing at all": ([], []),
}


def summarize(metric):
    index, scores = metric.per_sample()
    value = metric.compute() if len(index) else torch.tensor(math.nan)
    return [value, metric.standard_error(), torch.tensor(metric.num_undefined()), index, scores]


def evaluate_shard(rows):
    """All metrics on some of the samples, twice, to see that synchronizing leaves the local scores as they were."""
    metrics = collection()
    for row in rows:
        update(metrics, [row], index=torch.tensor([row]))
    first = {name: summarize(metric) for name, metric in metrics.items()}
    assert_close({name: summarize(metric) for name, metric in metrics.items()}, first, equal_nan=True)
    return first


def run_process(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {name: evaluate_shard(shards[rank]) for name, shards in SHARDS.items()}
    torch.save(results, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    finish(*[forked(run_process, rank, folder) for rank in range(2)])
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", SHARDS)
def test_two_processes_agree_with_one(two_processes, name):
    expected = evaluate_shard(sorted({row for shard in SHARDS[name] for row in shard}))
    for results in two_processes:
        assert_close(results[name], expected, equal_nan=True, rtol=0, atol=0)
