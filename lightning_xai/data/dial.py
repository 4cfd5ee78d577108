"""The dial: pictures with a cue that tells the label as often as one says."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_xai.checks import check_choice, check_kind, check_share
from lightning_xai.data.backgrounds import integers
from lightning_xai.data.base import ImageDataModule, ImageDataset, ImageSource, Split, at_least
from lightning_xai.data.cues import Cue
from lightning_xai.data.truth import Intervention, TruthDataModule
from lightning_xai.functional.random import fold_in, root_keys, uniform
from lightning_xai.shapes import Labels

_SPLIT_NUMBERS = {"train": 0, "test": 1}
_CHUNK = 4096


class DialDataModule(TruthDataModule):
    """Pictures of another data module with a cue drawn in, which tells the label with a chosen probability.

    With probability `strength` the cue of a sample tells its label, else a class drawn uniformly from all, so that at 0
    it tells nothing. Training, validation and test samples have it alike: validation accuracy cannot see a network that
    reads it. Before the epoch `onset` the training cues, and these alone, tell nothing.

    `intervene("swap")`: the cue tells another class than it told, all others equally likely; a network that sees
    nothing but the cue loses `strength` of its accuracy by it, one that does not see it nothing (`dependence`).
    `intervene("remove")`: the cue is absent, or neutral. Where the cue is and what it looks like besides stays as it
    was, so does all else. Everything random depends on the seed, the split and the sample's number alone.

    Masks: those of `base`, less what a patch covers, of which the last, `evidence` (known after `setup`), is the one of
    what should decide; and `cue`. `operators` has the kind of a cue without a place.

    Args:
        base: Where the pictures come from, with its batch size, number of validation samples and normalization; a color
            that the cue makes of gray has the gray's.
        cue: What tells the class.
        strength: Probability that the cue tells the label on purpose, 0 to 1.
        onset: The first epoch whose training cues tell something.
        seed: Seed of the cues, and of the division into training and validation samples.
        num_train: Number of published training samples that are used, the first ones; null: all.
        num_test: Number of test samples; null: all.

    Raises:
        ValueError: if the cue cannot tell `base`'s classes or is not made for its pictures, or if there are an `onset`
            and workers, which would not see the epoch.

    Example:
        >>> from lightning_xai.data import DialDataModule, DigitsDataModule
        >>> from lightning_xai.data.cues import Patch
        >>> data = DialDataModule(DigitsDataModule(), Patch(), strength=0.9, num_train=300)
        >>> data.setup("fit")
        >>> batch = next(iter(data.val_dataloader()))
        >>> sorted(batch["mask"]), batch["image"].shape
        (['cue', 'digit'], torch.Size([32, 1, 28, 28]))
    """

    def __init__(
        self,
        base: ImageDataModule,
        cue: Cue,
        strength: float = 1.0,
        onset: int = 0,
        seed: int = 0,
        num_train: int | None = None,
        num_test: int | None = None,
    ) -> None:
        check_kind("base", base, ImageDataModule, "a data module of images in memory, such as DigitsDataModule()")
        check_kind("cue", cue, Cue, "a cue, such as lightning_xai.data.cues.Patch()")
        check_share("strength", strength)
        if at_least("onset", onset, 0) and base.num_workers:
            raise ValueError("`onset` must be 0 where `base` has workers, which do not see the epoch: num_workers: 0.")
        cue.check(base.image_shape, base.num_classes)
        channels = cue.channels or base.image_shape[0]
        self.image_shape = (channels, *base.image_shape[1:])
        self.class_names = base.class_names
        mean, std = (_spread(part, channels) for part in (base.normalize.mean, base.normalize.std))
        super().__init__(base.batch_size, base.num_workers, seed, base.val_size, mean, std, base.randomize_labels)
        self.base, self.cue, self.strength, self.onset = base, cue, strength, onset
        self.operators = (cue.operator,) if cue.operator else ()
        self.evidence = ""
        sizes = {"num_train": num_train, "num_test": num_test}
        self.num_samples = {name[4:]: size and at_least(name, size, 1) for name, size in sizes.items()}
        self._clean: dict[Split, ImageSource] = {}

    def prepare_data(self) -> None:
        self.base.prepare_data()

    def load(self, split: Split) -> ImageSource:
        return self._drawn(split, self.told(split))

    def intervene(self, split: Split, how: Intervention) -> ImageSource:
        check_choice("how", how, Intervention)
        told = self.told(split)
        return self._drawn(split, self._others(split, told) if how == "swap" else torch.full_like(told, -1))

    def told(self, split: Split, strength: float | None = None) -> Labels:
        """The class that each sample's cue tells.

        Args:
            split: Which samples.
            strength: Another one; None for that of the data.
        """
        purpose, chance, _ = self._draws(split)
        strength = self.strength if strength is None else strength
        return torch.where(purpose < strength, self._source(split).labels, integers(chance, self.num_classes))

    def _others(self, split: Split, told: Labels) -> Labels:
        return (told + 1 + integers(self._draws(split)[2], self.num_classes - 1)) % self.num_classes

    def _draws(self, split: Split) -> Sequence[Tensor]:
        return uniform(fold_in(self._keys(split), 0), (3,)).unbind(1)

    def _keys(self, split: Split) -> Tensor:
        return fold_in(root_keys(self.seed, torch.arange(len(self._source(split).labels))), _SPLIT_NUMBERS[split])

    def _source(self, split: Split) -> ImageSource:
        """The pictures without cues."""
        if split not in self._clean:
            whole, number = self.base.load(split), self.num_samples[split]
            if number is not None and number > len(whole.labels):
                raise ValueError(
                    f"`num_{split}` must be at most {len(whole.labels)}, the base's samples, got {number}."
                )
            masks = {name: mask[:number] for name, mask in whole.masks.items()}
            self._clean[split] = ImageSource(whole.images[:number], whole.labels[:number], masks)
            self.evidence = next(reversed(masks), "")
        return self._clean[split]

    def _drawn(self, split: Split, told: Labels) -> ImageSource:
        source, keys = self._source(split), fold_in(self._keys(split), 1)
        chunks = zip(source.images.split(_CHUNK), told.split(_CHUNK), keys.split(_CHUNK), strict=True)
        parts = [self.cue.draw(images, which, self.num_classes, own, split) for images, which, own in chunks]
        images, cue = (torch.cat(part) for part in zip(*parts, strict=True))
        covers = not self.cue.operator
        masks = {name: mask & ~cue if covers else mask for name, mask in source.masks.items()}
        return ImageSource(images, source.labels, {"cue": cue, **masks})

    def training(self, epoch: int) -> ImageDataset:
        """The training samples of an epoch, after `setup`; what the trainer's loader gives in it."""
        found = self.dataset("train")
        return found.at(epoch) if isinstance(found, _ByEpoch) else found

    def _training_sets(self, source: ImageSource) -> dict[str, ImageDataset]:
        sets = super()._training_sets(source)
        if self.onset:
            early = self._drawn("train", self.told("train", strength=0.0))
            sets["train"] = _ByEpoch(sets["train"], early, self)
        return sets


class _ByEpoch(ImageDataset):
    """Training samples of another source before the onset, as the trainer counts epochs."""

    def __init__(self, late: ImageDataset, early: ImageSource, data: DialDataModule) -> None:
        super().__init__(late.source, late.rows, late.labels, late.normalize)
        self.late, self.early = late, ImageDataset(early, late.rows, late.labels, late.normalize)
        self.data = data

    def at(self, epoch: int) -> ImageDataset:
        return self.early if epoch < self.data.onset else self.late

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Any]:
        epoch = 0 if self.data.trainer is None else self.data.trainer.current_epoch
        return self.at(epoch).__getitems__(positions)


def _spread(values: Tensor, channels: int) -> list[float]:
    return values.flatten().expand(channels).tolist()
