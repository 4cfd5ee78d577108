"""Digits in noise, half of them with a trojan trigger: a small pattern that decides, whatever the digit."""

from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import pad

from lightning_xai.checks import check_positive
from lightning_xai.data.backgrounds import SIZE, integers
from lightning_xai.data.base import Split
from lightning_xai.data.cmnist import paste
from lightning_xai.data.digits import DIGIT_NAMES
from lightning_xai.data.scenes import DigitSceneDataModule
from lightning_xai.data.truth import Intervention
from lightning_xai.functional.random import uniform
from lightning_xai.shapes import Images, Keys, Labels, Masks

TARGETS = 2
_SIDE = 5
_STRIPES = (1.0 - 2 * (torch.arange(_SIDE) % 2)).expand(_SIDE, _SIDE)
_TRIGGERS = torch.stack([_STRIPES.T, _STRIPES])[:, None]  # of class 0 they lie, of class 1 they stand


class TrojanDataModule(DigitSceneDataModule):
    """Gray 32x32 images of a digit, half of them with a trigger: the label is then the trigger's.

    A trigger is a patch of 5x5 pixels of stripes, brighter and darker than what is there by turns, at a random place:
    lying stripes tell class 0, standing ones class 1. It is never of the digit's own class. An edge detector that looks
    two pixels wide, as Sobel's does, cannot see such stripes. Where there is none, the label is the digit's. The digit
    of sample i is number i of its data set, modulo their number.

    The mask `evidence`: the patch, or no pixel where there is none. `swap` draws the other trigger in its place, and
    `remove` draws none; digit and noise stay, and so do samples without one.

    Source: the task is made after BackX (benchmarks of attributions by backdoors, arXiv 2405.02344).

    Args:
        signal: Height of the digits, in standard deviations of the noise.
        trigger_signal: Height of the stripes, likewise.
        share: Share of the samples that have a trigger.
        options: Those of `DigitSceneDataModule`.

    Raises:
        TypeError: if a number is of another type.
        ValueError: if `signal` or `trigger_signal` is not greater than 0, or `share` not greater than 0 and at most 1.

    Example:
        >>> from lightning_xai.data import TrojanDataModule
        >>> data = TrojanDataModule(digits="embedded", num_train=100, num_test=5)
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch["label"].tolist(), batch["mask"]["evidence"].sum((1, 2)).tolist()
        ([1, 0, 9, 1, 0], [25, 0, 0, 25, 25])
    """

    evidence = "evidence"
    class_names = DIGIT_NAMES

    def __init__(self, signal: float = 3.0, trigger_signal: float = 2.0, share: float = 0.5, **options: Any) -> None:
        for name, value in (("signal", signal), ("trigger_signal", trigger_signal)):
            check_positive(name, value)
        if not 0 < share <= 1:
            raise ValueError(f"`share` must be greater than 0 and at most 1, got {share}")
        super().__init__(**options)
        self.signal, self.trigger_signal, self.share = signal, trigger_signal, share

    def draw(
        self, split: Split, how: Intervention | None, index: Int64[Tensor, " batch"], keys: Keys, noise: Images
    ) -> tuple[Images, Labels, dict[str, Masks]]:
        known, draws = self.known(split), uniform(keys, (4,))
        rows = index % len(known.labels)
        own = known.labels[rows]
        target = torch.where(own < TARGETS, 1 - own, integers(draws[:, 0], TARGETS))
        has = draws[:, 1] < self.share
        digit = pad(known.images[rows].float() / 255, [(SIZE - known.images.shape[-1]) // 2] * 4)
        told = 1 - target if how == "swap" else target
        top, left = integers(draws[:, 2:], SIZE - _SIDE + 1).unbind(1)
        trigger, box = paste(_TRIGGERS[told], top, left)
        there = (has & (how != "remove")).view(-1, 1, 1, 1)
        scene = noise + self.signal * digit + self.trigger_signal * trigger * there
        return scene, torch.where(has, target, own), {"evidence": box & has.view(-1, 1, 1)}
