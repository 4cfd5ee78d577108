"""Gray pictures of evidence in noise: what the data modules of known truth for pictures of our own share.

A scene is measured in standard deviations of the noise. A pixel is 0.5 + 0.12 times the scene, clipped and rounded to 8
bits; with the default `mean` and `std` an input is the scene again, in [-4.17, 4.17].
"""

from abc import abstractmethod
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision import datasets

from lightning_xai.checks import check_choice
from lightning_xai.data.backgrounds import SIZE, embedded_backgrounds, integers
from lightning_xai.data.base import ImageSource, Split, at_least
from lightning_xai.data.cmnist import known_digits
from lightning_xai.data.digits import load_embedded_digits
from lightning_xai.data.mnist import fetch_idx_files, load_idx_files
from lightning_xai.data.truth import Intervention, TruthDataModule
from lightning_xai.functional.random import fold_in, root_keys, standard_normal, uniform
from lightning_xai.shapes import Images, Keys, Labels, Masks

Background = Literal["white", "correlated", "photographs"]

CENTER, SPREAD = 0.5, 0.12  # of pixels: noise is clipped beyond 4.17 of its standard deviations
WHITE_SHARE = 0.5  # of the variance of a background that is not white
SMOOTHNESS = 1 / 16  # of the image: standard deviation of the Gaussian that smooths correlated noise
_LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
_SPLIT_NUMBERS = {"train": 0, "test": 1}
_CHUNK = 2048
_WHITE, _SMOOTH, _PHOTOGRAPH = range(1, 4)  # streams of a sample's key; 0 is for what is in the scene


class SceneDataModule(TruthDataModule):
    """Base of data modules that draw evidence into noise; sample i depends on the seed, the split and i alone.

    Args:
        image_size: Height and width in pixels.
        background: `white` noise; `correlated`, half of its variance smoothed by a Gaussian of a sixteenth of the
            image; or `photographs`, half of it crops of embedded photographs, each with mean 0 and variance 1, those to
            test with from other parts of the photographs. In the last two, pixels without evidence tell what the noise
            on the evidence is: they are suppressor variables, which a good classifier uses and which tell no class.
        num_train: Number of training samples before the division into training and validation.
        num_test: Number of test samples.
        batch_size: Samples a batch and process.
        seed: Seed of the images and of everything that `ImageDataModule` draws.
        options: Those of `ImageDataModule`.

    Raises:
        TypeError: if a number is of another type.
        ValueError: if `background` is unknown, or a number is less than 1.

    Example:
        >>> import torch
        >>> from lightning_xai.data.scenes import SceneDataModule
        >>> class Halves(SceneDataModule):  # one half is brighter: class 0 the left one, class 1 the right one
        ...     evidence, class_names = "half", ("left", "right")
        ...     def draw(self, split, how, index, keys, noise):
        ...         labels = index % 2
        ...         side = labels ^ (how == "swap")
        ...         masks = (torch.arange(32) < 16).expand(len(index), 32, 32) ^ side.bool()[:, None, None]
        ...         return noise + masks[:, None] * (how != "remove"), labels, {"half": masks}
        >>> data = Halves(num_train=100, num_test=4)
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch["label"].tolist(), batch["mask"]["half"][:, 0, 0].tolist()
        ([0, 1, 0, 1], [True, False, True, False])
    """

    default_mean = (CENTER,)
    default_std = (SPREAD,)

    def __init__(
        self,
        image_size: int = 32,
        background: Background = "white",
        num_train: int = 10000,
        num_test: int = 1000,
        batch_size: int = 128,
        seed: int = 0,
        **options: Any,
    ) -> None:
        check_choice("background", background, Background)
        self.image_shape = (1, image_size, image_size)
        super().__init__(batch_size=batch_size, seed=seed, **options)
        self.background = background
        self.num_samples = {"train": at_least("num_train", num_train, 1), "test": at_least("num_test", num_test, 1)}

    def load(self, split: Split) -> ImageSource:
        return self._drawn(split, None)

    def intervene(self, split: Split, how: Intervention) -> ImageSource:
        check_choice("how", how, Intervention)
        return self._drawn(split, how)

    @abstractmethod
    def draw(
        self, split: Split, how: Intervention | None, index: Int64[Tensor, " batch"], keys: Keys, noise: Images
    ) -> tuple[Images, Labels, dict[str, Masks]]:
        """Scenes on this noise, labels and masks of the samples; the last two whatever the intervention."""

    def _drawn(self, split: Split, how: Intervention | None) -> ImageSource:
        images, labels, masks = [], [], []
        for index in torch.arange(self.num_samples[split]).split(_CHUNK):
            keys = fold_in(root_keys(self.seed, index), _SPLIT_NUMBERS[split])
            noise = background(self.background, split, keys, self.image_shape[-1])
            scene, label, mask = self.draw(split, how, index, fold_in(keys, 0), noise)
            images.append((CENTER + SPREAD * scene).clamp(0, 1).mul(255).round().to(torch.uint8))
            labels.append(label)
            masks.append(mask)
        whole = {name: torch.cat([mask[name] for mask in masks]) for name in masks[0]}
        return ImageSource(torch.cat(images), torch.cat(labels), whole)


class DigitSceneDataModule(SceneDataModule):
    """Base of those that draw digits; arguments beside those of `SceneDataModule`, for images of 32x32 pixels:

    Args:
        root: Folder with (or for) `MNIST/raw`.
        download: Download what `root` lacks; needs the network.
        digits: `mnist`, or `embedded`: those of `DigitsDataModule`. Where there are fewer than samples, each is drawn
            several times, in other noise.
        options: Those of `SceneDataModule`.
    """

    def __init__(self, root: str = "data", download: bool = True, digits: str = "mnist", **options: Any) -> None:
        super().__init__(SIZE, **options)
        self.root, self.download, self.digits = root, download, known_digits(digits)
        self._known: dict[str, ImageSource] = {}

    def prepare_data(self) -> None:
        if self.digits == "mnist":
            fetch_idx_files(datasets.MNIST, self.root, self.download, "`digits: embedded`")

    def known(self, split: Split) -> ImageSource:
        """The digits of a split."""
        if split not in self._known:
            embedded = self.digits == "embedded"
            self._known[split] = (
                load_embedded_digits(split)
                if embedded
                else load_idx_files(datasets.MNIST, self.root, split, "digit", "`digits: embedded`")
            )
        return self._known[split]


def background(kind: Background, split: Split, keys: Keys, size: int) -> Float[Tensor, " batch 1 size size"]:
    """Noise of mean 0 and variance 1 a pixel; row i depends on key i alone."""
    shape = (1, size, size)
    white = standard_normal(fold_in(keys, _WHITE), shape)
    if kind == "white":
        return white
    if kind == "correlated":
        smooth = torch.fft.fft2(standard_normal(fold_in(keys, _SMOOTH), shape))
        structure = torch.fft.ifft2(smooth * smooth_power(size).sqrt().float()).real
    else:
        structure = _photographs(split, uniform(fold_in(keys, _PHOTOGRAPH), (2,)), size)
    return WHITE_SHARE**0.5 * white + (1 - WHITE_SHARE) ** 0.5 * structure


def smooth_power(size: int) -> Float[Tensor, " size size"]:
    """Power of the smoothed noise at each frequency of `torch.fft.fft2`, for a variance of 1; the noise is periodic."""
    frequency = torch.fft.fftfreq(size, dtype=torch.float64) * size * SMOOTHNESS
    power = (-4 * torch.pi**2 * (frequency[:, None] ** 2 + frequency**2)).exp()
    return power / power.mean()


def of_another_class(
    labels: Labels, known: Int64[Tensor, " known"], draws: Float[Tensor, " batch 2"]
) -> Int64[Tensor, " batch"]:
    """Rows of `known` whose class is none of `labels`: a class, all others equally likely, then one of its rows."""
    counts = known.bincount()
    other = (labels + 1 + integers(draws[:, 0], len(counts) - 1)) % len(counts)
    place = (counts.cumsum(0) - counts)[other] + integers(draws[:, 1], counts[other])
    return known.argsort(stable=True)[place]


def _photographs(split: Split, draws: Float[Tensor, " batch 2"], size: int) -> Float[Tensor, " batch 1 size size"]:
    """Crops in gray, enlarged from 32x32 pixels, each with mean 0 and variance 1."""
    known = embedded_backgrounds(split)
    crops = known.images[known.pick(*draws.unbind(1))]
    gray = (crops * _LUMA).sum(1, keepdim=True)
    large = interpolate(gray, size=(size, size), mode="bilinear")
    centered = large - large.mean((2, 3), keepdim=True)
    return centered / centered.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1)  # a level of 256, of a flat crop
