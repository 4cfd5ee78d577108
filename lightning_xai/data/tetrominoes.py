"""Tetrominoes in noise: which pixels tell the class is known, and for the linear task by how much."""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lightning_xai.checks import check_choice
from lightning_xai.data.backgrounds import integers
from lightning_xai.data.base import Split
from lightning_xai.data.cmnist import paste
from lightning_xai.data.scenes import SPREAD, WHITE_SHARE, Background, SceneDataModule, smooth_power
from lightning_xai.data.truth import Intervention
from lightning_xai.functional.random import uniform
from lightning_xai.networks import MLP
from lightning_xai.shapes import Images, Keys, Labels, Masks

Evidence = Literal["linear", "multiplicative", "rotated", "xor"]

GRID = 8
_FIGURES = torch.tensor([[[1, 1, 1], [0, 1, 0], [0, 0, 0]], [[1, 0, 0], [1, 0, 0], [1, 1, 0]]])  # T and L
_CORNERS = torch.tensor([1, 4])  # row and column of T and of L in the grid, where they do not move
_SIGNAL = {"linear": 0.5, "multiplicative": 0.35, "rotated": 1.5, "xor": 0.5}


class TetrominoDataModule(SceneDataModule):
    """Two classes, T and L, made of four cells of a grid of 8x8, faint in noise; gray images, labels drawn by the seed.

    What tells the class, with the noise n, figures T and L that are 1 inside and 0 outside, and the `signal` a:

    - `linear`: n + a T or n + a L, each at a place of its own. A linear classifier is the best one: on `white` and
      `correlated` noise `optimal_classifier` gives it, so that the attributions of a linear network are known.
    - `multiplicative`: n (1 - a T) or n (1 - a L): the noise is weaker there. Linear classifiers know no
      more than chance.
    - `rotated`: n + a T or n + a L, turned by a multiple of 90 degrees, at any place.
    - `xor`: n ± a T ± a L: the class says whether both signs are alike. Neither figure alone tells anything.

    The mask `evidence`: the pixels of both figures, for that there is none where it could be tells as much; `rotated`:
    those of the one that is there. `swap` draws the other figure in its stead (at the same place and turned likewise
    where it is `rotated`; `xor`: turns the sign of one of them), and `remove` draws none; the noise stays.

    Source: the tasks are made after those of Clark, Wilming and Haufe, XAI-TRIS, arXiv 2306.12816.

    Args:
        evidence: See above.
        background: See `SceneDataModule`.
        image_size: Height and width in pixels, a multiple of 8.
        signal: a, in standard deviations of the noise, less than 1 where it is multiplicative; null: 0.5, 0.35
            where it is multiplicative and 1.5 where it is rotated.
        options: Those of `SceneDataModule`.

    Raises:
        TypeError: if a number is of another type.
        ValueError: if `evidence` or `background` is unknown, `image_size` no multiple of 8, or `signal` not greater
            than 0, or 1 or more where it is multiplicative.

    Example:
        >>> from lightning_xai.data import TetrominoDataModule
        >>> data = TetrominoDataModule("linear", num_train=100, num_test=5)
        >>> data.setup()
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch["image"].shape, batch["mask"]["evidence"].sum((1, 2)).tolist()
        (torch.Size([5, 1, 32, 32]), [128, 128, 128, 128, 128])
        >>> network = data.optimal_classifier()  # its gradient is the truth
        >>> network(batch["image"]).argmax(1).eq(batch["label"]).tolist()
        [True, True, True, True, True]
        >>> swapped = data.normalize(data.intervene("test", "swap").images)
        >>> network(swapped).argmax(1).eq(batch["label"]).tolist()
        [False, False, False, False, False]
    """

    evidence = "evidence"
    class_names = ("T", "L")

    def __init__(
        self,
        evidence: Evidence = "linear",
        background: Background = "white",
        image_size: int = 32,
        signal: float | None = None,
        **options: Any,
    ) -> None:
        check_choice("evidence", evidence, Evidence)
        if image_size < GRID or image_size % GRID:
            raise ValueError(f"`image_size` must be a multiple of {GRID}, the size of the grid, got {image_size}")
        super().__init__(image_size, background, **options)
        self.kind = evidence
        self.signal = _SIGNAL[evidence] if signal is None else signal
        if not 0 < self.signal < (1 if evidence == "multiplicative" else float("inf")):
            most = " and less than 1" if evidence == "multiplicative" else ""
            raise ValueError(f"`signal` must be greater than 0{most}, got {signal}")
        if evidence == "xor":
            self.class_names = ("alike", "unlike")

    def draw(
        self, split: Split, how: Intervention | None, index: Int64[Tensor, " batch"], keys: Keys, noise: Images
    ) -> tuple[Images, Labels, dict[str, Masks]]:
        draws = uniform(keys, (6,))
        labels = integers(draws[:, 0], 2)
        told = 1 - labels if how == "swap" else labels
        if self.kind == "rotated":
            layout = draws[:, 1:4]
            drawn, mask = self._turned(told, layout), self._turned(labels, layout)[:, 0] > 0
        else:
            figures = self._figures()
            drawn = self._signed(labels, how, draws[:, 4:]) if self.kind == "xor" else figures[told]
            mask = (figures.sum(0) > 0).expand(len(labels), -1, -1)
        signal = self.signal * drawn * (how != "remove")
        scene = noise * (1 - signal) if self.kind == "multiplicative" else noise + signal
        return scene, labels, {"evidence": mask}

    def _cells(self) -> Float[Tensor, " figure side side"]:
        cell = self.image_shape[-1] // GRID
        return _FIGURES.float().repeat_interleave(cell, 1).repeat_interleave(cell, 2)

    def _figures(self) -> Float[Tensor, " figure 1 height width"]:
        """T and L where they are if they do not move."""
        place = _CORNERS * (self.image_shape[-1] // GRID)
        return paste(self._cells()[:, None], place, place, self.image_shape[-1])[0]

    def _turned(self, which: Labels, layout: Float[Tensor, " batch 3"]) -> Images:
        """The figures turned, at places that are all equally likely."""
        cells = self._cells()
        all_turns = torch.stack([cells.rot90(turns, (1, 2)) for turns in range(4)], 1)
        turn, (top, left) = integers(layout[:, 0], 4), (self._place(draws) for draws in layout[:, 1:].unbind(1))
        return paste(all_turns[which, turn][:, None], top, left, self.image_shape[-1])[0]

    def _place(self, draws: Float[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
        return integers(draws, self.image_shape[-1] - self._cells().shape[-1] + 1)

    def _signed(self, labels: Labels, how: Intervention | None, draws: Float[Tensor, " batch 2"]) -> Images:
        """Both figures: T with a sign drawn by the seed, L with the one that tells the class."""
        first = 1 - 2 * integers(draws[:, 0], 2)
        signs = torch.stack([first, first * (1 - 2 * labels)], 1)
        if how == "swap":
            signs[torch.arange(len(signs)), integers(draws[:, 1], 2)] *= -1
        return (signs.view(-1, 2, 1, 1, 1) * self._figures()).sum(1)

    def optimal_classifier(self) -> MLP:
        """The linear network of the best classifier: its logits are the logarithms of the probabilities of the classes
        but for a number that both share, and its gradient is the known attribution.

        With means m of the classes, and C the covariance of the noise and of its rounding to 8 bits, class k has the
        weights C⁻¹ mₖ and the bias -mₖ C⁻¹ mₖ / 2 (Fisher 1936). C is circulant: it is inverted by Fourier's transform.

        Raises:
            ValueError: if the evidence is not linear, or the background photographs.
        """
        if self.kind != "linear" or self.background == "photographs":
            raise ValueError(
                "`optimal_classifier` is known for linear evidence on white or correlated noise, got "
                f"{self.kind} evidence on {self.background}"
            )
        size, scale = self.image_shape[-1], self.normalize.std.double() / SPREAD
        power = torch.ones(size, size, dtype=torch.float64)
        if self.background == "correlated":
            power = WHITE_SHARE + (1 - WHITE_SHARE) * smooth_power(size)
        power = power + (1 / 255 / SPREAD) ** 2 / 12  # of rounding, as of noise that is uniform
        means = self.signal * self._figures().double()
        weights = torch.fft.ifft2(torch.fft.fft2(means) / power).real
        offset = (self.normalize.mean.double() - 0.5) / SPREAD
        network = MLP(self.image_shape, (), 2)
        biases = (weights * (offset - means / 2)).sum((1, 2, 3))
        network.load_state_dict(
            {"layers.linear1.weight": (weights * scale).flatten(1), "layers.linear1.bias": biases},
        )
        return network
