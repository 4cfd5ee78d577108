"""Which samples the callback explains, and which class: rows that the loader yields, and labels that are classes."""

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lightning_xai.callbacks import AttributionCallback
from lightning_xai.callbacks.rows import reachable_rows
from lightning_xai.callbacks.samples import Samples, choose_samples, unpack
from lightning_xai.callbacks.schedule import Schedule
from lightning_xai.explainers import Gradient
from lightning_xai.metrics import Sparseness

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*sampler has shuffling enabled.*"),
    pytest.mark.filterwarnings("ignore:.*Total length of.*"),
]

VALIDATION = [2, 3, 5, 7, 11, 13, 17, 19]


class Numbers(Dataset):
    """Sample i is an image full of i; what it loads is noted."""

    def __init__(self, length: int = 20, labels: Any = None) -> None:
        self.length, self.loaded = length, []
        self.labels = torch.arange(length) % 3 if labels is None else labels

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Any:
        self.loaded.append(i)
        return torch.full((1, 4, 4), float(i)), self.labels[i]


class Module(LightningModule):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self(unpack(batch, strict=False).images).mean(), batch_size=1)

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-6)


def callback(**options: Any) -> AttributionCallback:
    settings = {"num_samples": 100, "panel_size": 0, "keep_maps": True, "controls": False}
    return AttributionCallback({"grad": Gradient()}, {"s": Sparseness()}, **(settings | options))


def trainer_of(folder: Any, *callbacks: Any, **options: Any) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "max_epochs": 1}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **(quiet | options))


def train_loader() -> DataLoader:
    return DataLoader(Numbers(4), 4)


def explained(folder: Any, loader: Any, **options: Any) -> list[int]:
    """The samples that a validation explains, as they were loaded; their index says the same."""
    scores = callback()
    trainer_of(folder, scores, **options).validate(Module(), loader, verbose=False)
    assert scores.evaluation is not None
    seen = scores.evaluation.images[:, 0, 0, 0].int().tolist()
    assert scores.evaluation.index.tolist() == seen
    return seen


class OwnSampler(Sampler):
    """Shuffles in place, counts its passes, and draws with generators of its own and with the global ones."""

    def __init__(self) -> None:
        self.rows, self.passes = list(VALIDATION), 0
        self.generator, self.rng = torch.Generator().manual_seed(3), np.random.default_rng(3)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Any:
        self.passes += 1
        random.shuffle(self.rows)
        torch.rand(1, generator=self.generator), self.rng.random(), torch.rand(1), np.random.rand()  # noqa: NPY002
        yield from self.rows

    def state(self) -> Any:
        return self.rows[:], self.passes, self.generator.get_state().tolist(), self.rng.bit_generator.state


SAMPLERS = {
    "a subset at random": lambda data: {"sampler": SubsetRandomSampler(VALIDATION), "batch_size": 3},
    "a list": lambda data: {"sampler": VALIDATION[::-1], "batch_size": 3},
    "a tensor's rows": lambda data: {"sampler": SubsetRandomSampler(torch.tensor(VALIDATION)), "batch_size": 3},
    "ready batches": lambda data: {"batch_sampler": [VALIDATION[5:], VALIDATION[:5]]},
    "a batch sampler": lambda data: {"batch_sampler": BatchSampler(SubsetRandomSampler(VALIDATION), 3, False)},
    "somebody's own": lambda data: {"sampler": OwnSampler(), "batch_size": 3},
    "repeats": lambda data: {"sampler": VALIDATION * 4, "batch_size": 3},
    "without end": lambda data: {"sampler": Endless(), "batch_size": 3},
    "with weights": lambda data: {"sampler": weighted(), "batch_size": 3},
}


class Endless(Sampler):
    def __iter__(self) -> Any:
        return itertools.cycle(VALIDATION)


def weighted() -> WeightedRandomSampler:
    return WeightedRandomSampler([float(i in VALIDATION) for i in range(20)], 2)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_rows_are_those_of_the_sampler_sorted_without_repeats_and_without_loading(kind: str) -> None:
    data = Numbers()
    assert list(reachable_rows(DataLoader(data, **SAMPLERS[kind](data)))) == VALIDATION
    assert data.loaded == []


@pytest.mark.parametrize("kind", ["a subset at random", "ready batches", "somebody's own", "with weights"])
def test_the_callback_explains_rows_that_the_loader_yields(tmp_path: Any, kind: str) -> None:
    data = Numbers()
    assert explained(tmp_path, DataLoader(data, **SAMPLERS[kind](data))) == VALIDATION
    assert set(data.loaded) <= set(VALIDATION)


def test_they_are_spread_evenly_over_these_rows(tmp_path: Any) -> None:
    loader = DataLoader(Numbers(), 3, sampler=SubsetRandomSampler(VALIDATION))
    chosen = choose_samples(trained(tmp_path), loader, 3, 2, unpack)
    assert chosen.index.tolist() == [2, 11, 19]


def trained(folder: Any) -> Trainer:
    trainer = trainer_of(folder)
    trainer.strategy.connect(Module())
    return trainer


def test_a_sampler_and_all_random_states_are_left_as_they_were() -> None:
    sampler = OwnSampler()

    def states() -> Any:
        return sampler.state(), torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    before = states()
    loader = DataLoader(Numbers(), 3, sampler=sampler)
    first = reachable_rows(loader, 1)
    assert states() == before
    torch.rand(3), random.random()
    assert reachable_rows(loader, 1) == first, "the same rows in every run"


def in_two(sampler: Any, rank: int) -> BatchSampler:
    """What Lightning makes of a loader's sampler in the second of two processes, say."""
    return BatchSampler(DistributedSamplerWrapper(sampler, num_replicas=2, rank=rank, shuffle=False), 3, False)


class Halves(BatchSampler):
    """Somebody's own batch sampler, into which Lightning has put its distributed one."""

    def __iter__(self) -> Any:
        rows = list(self.sampler)
        yield rows[::2]
        yield rows[1::2]


@pytest.mark.parametrize("limit", [1.0, 1, 2, 0.5])
@pytest.mark.parametrize("make", [lambda: SubsetRandomSampler(VALIDATION), OwnSampler, weighted, lambda: VALIDATION])
def test_two_processes_ask_for_what_one_asks_for(make: Any, limit: Any) -> None:
    data = Numbers()
    one = reachable_rows(DataLoader(data, 3, sampler=make()), limit)
    for rank in (0, 1):
        two = reachable_rows(DataLoader(data, batch_sampler=in_two(make(), rank)), limit)
        assert two == one
    assert set(one) <= set(VALIDATION)


@pytest.mark.parametrize("shuffle", [False, True])
def test_lightnings_own_sampler_and_somebodys_batch_sampler_in_two_processes(shuffle: bool) -> None:
    data = Numbers()
    for limit in (1.0, 2):
        one = reachable_rows(DataLoader(data, 3, shuffle=shuffle), limit)
        two = DistributedSampler(data, 2, 1, shuffle=shuffle)
        assert list(reachable_rows(DataLoader(data, 3, sampler=two), limit)) == list(one)
        assert len(one) == (20 if limit == 1.0 else 6)
    wrapped = DistributedSamplerWrapper(VALIDATION, num_replicas=2, rank=1)
    assert reachable_rows(DataLoader(data, batch_sampler=Halves(wrapped, 4, False))) == VALIDATION


def test_a_distributed_sampler_of_the_users_is_asked_for_all_its_shares() -> None:
    class Odd(DistributedSampler):
        def __iter__(self) -> Any:
            return iter(VALIDATION[self.rank :: self.num_replicas])

    data = Numbers()
    assert reachable_rows(DataLoader(data, 3, sampler=Odd(data, 2, 1))) == VALIDATION


@pytest.mark.parametrize(("limit", "expected"), [(2, 6), (0.5, 9), (1.0, 20), (1, 3), (100, 20)])
def test_limited_batches_limit_the_samples(tmp_path: Any, limit: Any, expected: int) -> None:
    assert explained(tmp_path, DataLoader(Numbers(), 3), limit_val_batches=limit) == list(range(expected))
    scores = callback()
    trainer_of(tmp_path, scores, limit_test_batches=limit).test(Module(), DataLoader(Numbers(), 3), verbose=False)
    assert scores.evaluation is not None
    assert len(scores.evaluation.index) == expected


def test_an_incomplete_last_batch_that_is_dropped_is_not_explained(tmp_path: Any) -> None:
    assert explained(tmp_path, DataLoader(Numbers(), 3, drop_last=True)) == list(range(18))


def test_the_rows_of_a_run_stay_the_same(tmp_path: Any) -> None:
    seen = []

    class Watching(AttributionCallback):
        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            assert self.evaluation is not None
            seen.append(self.evaluation.index.tolist())

    scores = Watching({"grad": Gradient()}, {"s": Sparseness()}, num_samples=4)
    loader = DataLoader(Numbers(), 2, sampler=RandomSampler(Numbers(), num_samples=6))
    trainer_of(tmp_path, scores, max_epochs=3, limit_val_batches=2).fit(Module(), train_loader(), loader)
    assert seen[0] == seen[1] == seen[2]


def test_validate_explains_its_own_data_after_a_training_on_others(tmp_path: Any) -> None:
    scores = callback()
    trainer = trainer_of(tmp_path, scores)
    trainer.fit(Module(), train_loader(), DataLoader(Numbers(5), 3))
    trainer.validate(trainer.lightning_module, DataLoader(Numbers(), 3, sampler=VALIDATION), verbose=False)
    assert scores.evaluation is not None
    assert scores.evaluation.index.tolist() == VALIDATION


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return map(Numbers().__getitem__, range(20))


class Plain:
    def __iter__(self) -> Any:
        return iter(DataLoader(Numbers(), 3))


@pytest.mark.parametrize("stream", [DataLoader(Stream(), 3), Plain()])
@pytest.mark.parametrize("num_sanity_val_steps", [0, 1])
def test_fit_validates_on_streams_without_length_and_on_plain_iterables(
    tmp_path: Any, stream: Any, num_sanity_val_steps: int
) -> None:
    scores = callback(num_samples=5)
    trainer_of(tmp_path, scores, num_sanity_val_steps=num_sanity_val_steps).fit(Module(), train_loader(), stream)
    assert scores.evaluation is not None
    assert scores.evaluation.index.tolist() == list(range(5))


def test_limited_batches_limit_a_stream(tmp_path: Any) -> None:
    scores = callback()
    trainer_of(tmp_path, scores, limit_val_batches=2).validate(Module(), DataLoader(Stream(), 3), verbose=False)
    assert scores.evaluation is not None
    assert len(scores.evaluation.index) == 6


def test_data_sets_of_ready_batches(tmp_path: Any) -> None:
    class Batches(Numbers):
        def __getitem__(self, i: int) -> Any:
            return torch.full((3, 1, 4, 4), float(i)), torch.tensor([0, 1, 2])

    scores = callback()
    trainer_of(tmp_path, scores).validate(Module(), DataLoader(Batches(4), batch_size=None), verbose=False)
    assert scores.evaluation is not None
    assert scores.evaluation.images[:, 0, 0, 0].tolist() == [0.0] * 3 + [1.0] * 3 + [2.0] * 3 + [3.0] * 3


# Which class


def with_labels(labels: Any, count: int = 8) -> DataLoader:
    return DataLoader(Numbers(count, labels), 4)


CLASSES = torch.tensor([0, 2, 1, 0, 2, 1, 1, 0])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.int16])
@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 1, 1)])
def test_integer_labels_with_or_without_further_axes_are_explained(tmp_path: Any, dtype: Any, shape: Any) -> None:
    scores = callback()
    loader = with_labels(CLASSES.to(dtype).view(shape))
    trainer_of(tmp_path, scores).validate(Module(), loader, verbose=False)
    assert scores.evaluation is not None
    assert torch.equal(scores.evaluation.target, CLASSES)


class Untrained(Module):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise AssertionError("training has begun")


BAD_LABELS = {
    "one-hot": (torch.eye(3)[CLASSES], r"integers of shape \(8,\), .*got torch.float32 of shape \(8, 3\)"),
    "multi-hot": (torch.eye(3).long()[CLASSES], r"got torch.int64 of shape \(8, 3\)"),
    "soft": (CLASSES.float(), r"got torch.float32 of shape \(8,\)"),
    "likely": (CLASSES / 2, r"got torch.float32 of shape \(8,\)"),
    "a dict": ([{"class": int(c)} for c in CLASSES], r"got dict"),
    "words": ([str(int(c)) for c in CLASSES], r"got (tuple|list)"),
    "mixup": ([(int(c), int(c), 0.5) for c in CLASSES], r"got (tuple|list)"),
}


@pytest.mark.parametrize("num_sanity_val_steps", [0, 1])
@pytest.mark.parametrize("kind", BAD_LABELS)
def test_what_is_no_class_is_refused_before_training(tmp_path: Any, kind: str, num_sanity_val_steps: int) -> None:
    labels, message = BAD_LABELS[kind]
    trainer = trainer_of(tmp_path, callback(), num_sanity_val_steps=num_sanity_val_steps)
    with pytest.raises((TypeError, ValueError), match=message + r'(?s:.*)`target="prediction"`.*`unpack`'):
        trainer.fit(Untrained(), with_labels(labels), with_labels(labels))


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_they_do_not_matter_where_the_prediction_is_explained_or_unpack_knows_better(tmp_path: Any, kind: str) -> None:
    loader = with_labels(BAD_LABELS[kind][0])
    predicted = callback(target="prediction")
    module = Module()
    trainer_of(tmp_path, predicted).validate(module, loader, verbose=False)
    assert predicted.evaluation is not None
    assert torch.equal(predicted.evaluation.target, predicted.evaluation.predicted)

    def classes(batch: Any) -> Samples:
        images = batch[0]
        return Samples(images, (images[:, 0, 0, 0] % 3).long()[:, None], torch.full((len(images),), -1), None)

    known = callback(target="label", unpack=classes)
    trainer_of(tmp_path, known).validate(module, loader, verbose=False)
    assert known.evaluation is not None
    assert known.evaluation.target.tolist() == [i % 3 for i in range(8)]


def test_labels_under_another_name_are_not_taken_for_none(tmp_path: Any) -> None:
    class Named(Numbers):
        def __getitem__(self, i: int) -> Any:
            return {"image": super().__getitem__(i)[0], "truth": i % 3}

    for target in (None, "label"):
        with pytest.raises(ValueError, match=r"labels in one of the keys label, .*it has image, truth"):
            trainer_of(tmp_path, callback(target=target)).validate(Module(), DataLoader(Named(), 4), verbose=False)


def test_a_batch_of_images_alone_has_no_label_to_explain(tmp_path: Any) -> None:
    class Unlabelled(Numbers):
        def __getitem__(self, i: int) -> Any:
            return {"image": super().__getitem__(i)[0], "index": i}

    scores = callback()
    trainer_of(tmp_path, scores).validate(Module(), DataLoader(Unlabelled(), 4), verbose=False)
    assert scores.evaluation is not None
    assert torch.equal(scores.evaluation.target, scores.evaluation.predicted)
    with pytest.raises(ValueError, match='`target` is "label", but the batches have no labels'):
        trainer_of(tmp_path, callback(target="label")).validate(Module(), DataLoader(Unlabelled(), 4), verbose=False)


@pytest.mark.parametrize("bad", [-100, 3, 255])
def test_a_label_that_is_no_output_is_refused_before_training_with_its_sample(tmp_path: Any, bad: int) -> None:
    labels = torch.arange(20) % 3
    labels[17] = bad
    trainer = trainer_of(tmp_path, callback())
    with pytest.raises(ValueError, match=rf"must be in 0 .. 2, the outputs.* 1 of 20 are not: {bad} of sample 17"):
        trainer.fit(Untrained(), train_loader(), with_labels(labels, 20))


def test_labels_of_an_embedding_network_are_warned_of_where_the_number_of_classes_is_known(tmp_path: Any) -> None:
    data = Numbers()
    trainer_of(tmp_path, callback()).validate(Module(7), DataLoader(data, 4), verbose=False)
    data.classes = ["a", "b", "c"]
    with pytest.warns(UserWarning, match="has 7 outputs and the data have 3 classes"):
        trainer_of(tmp_path, callback()).validate(Module(7), DataLoader(data, 4), verbose=False)
    trainer_of(tmp_path, callback()).validate(Module(3), DataLoader(data, 4), verbose=False)


@pytest.mark.parametrize("options", [{}, {"check_val_every_n_epoch": 2, "max_epochs": 2}])
def test_all_samples_are_within_the_bounds_before_training_begins(tmp_path: Any, options: dict) -> None:
    trainer = trainer_of(tmp_path, callback(bounds=(0.0, 18.5)), **options)
    with pytest.raises(ValueError, match=r"`bounds` must hold the inputs.*0 to 19"):
        trainer.fit(Untrained(), train_loader(), with_labels(torch.arange(20) % 3, 20))


def test_schedules_are_those_of_the_loop() -> None:
    assert [e for e in range(12) if Schedule(0, 12.0, 2, 3).explained(e)] == [5, 11]
    assert [e for e in range(12) if Schedule(0, 12.0, None, 4).explained(e)] == [3, 7, 11]
