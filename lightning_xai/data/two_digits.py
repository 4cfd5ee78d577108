"""Two digits in noise, one of which is asked for: where it is decides, not what is there."""

from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from lightning_xai.checks import check_choice, check_positive
from lightning_xai.data.backgrounds import integers
from lightning_xai.data.base import Split
from lightning_xai.data.cmnist import DIGIT_SIZE, INK, paste, shrink
from lightning_xai.data.digits import DIGIT_NAMES
from lightning_xai.data.scenes import DigitSceneDataModule, of_another_class
from lightning_xai.data.truth import Intervention
from lightning_xai.functional.random import uniform
from lightning_xai.shapes import Images, Keys, Labels, Masks

Question = Literal["marker", "left"]

_TOP, _HEIGHTS = 8, 6  # the rows above are the marker's
_CROP = slice(3, 25)  # of 28 pixels, of which four on each side are a margin
_MARKER = torch.ones(1, 1, 3, 8)


class TwoDigitsDataModule(DigitSceneDataModule):
    """Gray 32x32 images of two digits of different classes, left and right; the label is that of one of them.

    Which one is told by a `marker`, a bar of 3x8 pixels above it, or it is the `left` one always, without a marker.
    Each digit is the middle of its image, 22x22 pixels of 28x28, reduced to 16x16, at one of six heights. The asked
    digit of sample i is number i of its data set, modulo their number.

    Masks: `evidence` and `other`, the ink of the asked digit and of the other one, and `marker`. `swap` draws a digit
    of another class in the place of the asked one, and `remove` draws none; the other digit, the marker and the noise
    stay.

    Args:
        question: See above.
        signal: Height of ink and marker, in standard deviations of the noise.
        options: Those of `DigitSceneDataModule`.

    Raises:
        TypeError: if a number is of another type.
        ValueError: if `question` is neither "marker" nor "left", or `signal` not greater than 0.

    Example:
        >>> from lightning_xai.data import TwoDigitsDataModule
        >>> data = TwoDigitsDataModule("left", digits="embedded", num_train=100, num_test=5)
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch["image"].shape, list(batch["mask"])
        (torch.Size([5, 1, 32, 32]), ['evidence', 'other', 'marker'])
        >>> batch["mask"]["marker"].any().item()
        False
    """

    evidence = "evidence"
    class_names = DIGIT_NAMES

    def __init__(self, question: Question = "marker", signal: float = 4.0, **options: Any) -> None:
        check_choice("question", question, Question)
        check_positive("signal", signal)
        super().__init__(**options)
        self.question, self.signal = question, signal

    def draw(
        self, split: Split, how: Intervention | None, index: Int64[Tensor, " batch"], keys: Keys, noise: Images
    ) -> tuple[Images, Labels, dict[str, Masks]]:
        known, draws = self.known(split), uniform(keys, (7,))
        rows = index % len(known.labels)
        labels = known.labels[rows]
        right = integers(draws[:, 0], 2) * (self.question == "marker")
        heights = _TOP + integers(draws[:, 1:3], _HEIGHTS)

        def drawn(which: Tensor, place: int) -> Tensor:
            side = right if place == 0 else 1 - right
            return paste(shrink(known.images[which][..., _CROP, _CROP]), heights[:, place], side * DIGIT_SIZE)[0]

        asked, other = drawn(rows, 0), drawn(of_another_class(labels, known.labels, draws[:, 3:5]), 1)
        marker = paste(_MARKER.expand(len(rows), -1, -1, -1), 2 * torch.ones_like(right), 4 + right * DIGIT_SIZE)[0]
        marker = marker * (self.question == "marker")
        masks = {name: part[:, 0] > INK for name, part in {"evidence": asked, "other": other, "marker": marker}.items()}
        if how == "swap":
            asked = drawn(of_another_class(labels, known.labels, draws[:, 5:]), 0)
        return noise + self.signal * (asked * (how != "remove") + other + marker), labels, masks
