"""Metrics of whether an attribution predicts how the model's output changes."""

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_xai.explainers.base import Context, check_choice, check_count, check_rows, explaining
from lightning_xai.explainers.chunks import groups, in_chunks
from lightning_xai.explainers.gradient import Baseline, baseline_like, checked_baseline
from lightning_xai.functional.devices import sent
from lightning_xai.functional.faithfulness import pearson, random_subsets, replace_pixels, subset_sums
from lightning_xai.functional.maps import by_channel, scored_map
from lightning_xai.metrics.base import SampleMetric, Shared
from lightning_xai.metrics.checks import check_batch
from lightning_xai.shapes import Scores

Watched = Literal["explained", "probability"]
"""Which number of the evaluation's `Output` a metric watches: what is explained, or the target's probability."""


class SubsetDrops(NamedTuple):
    """Random subsets of each sample's pixels, and how far the output falls when a subset is replaced."""

    subsets: Tensor  # (batch, subset, k)
    drops: Tensor  # (batch, subset)


class FaithfulnessCorrelation(SampleMetric):
    """Pearson correlation, over random subsets of pixels, of attribution and drop (Bhatt et al. 2020).

    Higher is better.

    The sum of the signed channel sums over the subset against f(x) - f(x with the subset replaced by the baseline). A
    pixel is replaced in all channels. All methods of an evaluation see the same subsets, and the model is run on them
    once. Undefined where the drops or the sums are constant, or a value of the map or of the drops is not finite.

    Args:
        num_subsets: Random subsets a sample; the published setting is 100.
        subset_size: Pixels a subset; the published setting is 224.
        baseline: "black" or "white" (they need bounds), or a number in the space of the inputs.
        output: Watched: the output that is "explained", by default the target's logit, or its "probability".
        per_value: Subsets of channel values instead of pixels, as newer releases of Quantus draw them.

    Raises:
        TypeError: if a number is of another type.
        ValueError: if a number is out of its range, or a choice unknown; when updated, if bounds are missing, or inputs
            have fewer pixels than a subset.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
        >>> model[1].weight.data = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
        >>> metrics = {"faithfulness": lx.metrics.FaithfulnessCorrelation(subset_size=2, baseline=0.0)}
        >>> means = lx.evaluate(model, torch.rand(3, 1, 2, 2), 1, ["input_x_gradient"], metrics).means()
        >>> round(means["input_x_gradient"]["faithfulness"], 3)
        1.0
    """

    higher_is_better = True

    def __init__(
        self,
        num_subsets: int = 100,
        subset_size: int = 224,
        baseline: Baseline = "black",
        output: Watched = "explained",
        per_value: bool = False,
        **kwargs: Any,
    ) -> None:
        check_count("num_subsets", num_subsets)
        if num_subsets < 2:
            raise ValueError(f"`num_subsets` must be at least 2 for a correlation, got {num_subsets}.")
        check_count("subset_size", subset_size)
        baseline = checked_baseline(baseline)
        check_choice("output", output, Watched)
        super().__init__(**kwargs)
        self.num_subsets, self.subset_size = num_subsets, subset_size
        self.baseline, self.output, self.per_value = baseline, output, per_value

    def update(
        self,
        attributions: Tensor,
        *,
        inputs: Tensor,
        target: Tensor,
        model: nn.Module,
        context: Context,
        shared: Shared | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Score attributions of `inputs`, one value a place or more, for the classes `target`.

        Raises:
            ValueError: if they are not of the same samples, or a shape does not fit that of the inputs.
        """
        check_batch(attributions, inputs, target, context, per_element=self.per_value)
        settings = ("subset drops", self.num_subsets, self.subset_size, self.baseline, self.output, self.per_value)
        measure = partial(self._measure, model, inputs, target, context)
        subsets, drops = measure() if shared is None else shared.once(settings, measure)
        maps = scored_map(self._as_maps(attributions), absolute=False)
        correlation = pearson(subset_sums(maps, subsets), drops)
        self.record(correlation, index)

    def _measure(self, model: nn.Module, inputs: Tensor, target: Tensor, context: Context) -> SubsetDrops:
        self.check_inputs(inputs)
        shaped = self._as_maps(inputs)
        num_pixels = shaped[0, 0].numel()
        keys = context.private_keys("faithfulness")
        subsets = sent(random_subsets(keys, self.num_subsets, self.subset_size, num_pixels), inputs.device)
        baseline = self._as_maps(baseline_like(inputs, self.baseline, context).expand_as(inputs))
        changed = []
        with explaining(model), torch.no_grad():
            clean = model_output(model, inputs, target, context, self.output)
            for numbers in groups(self.num_subsets, model, inputs, context.max_rows):
                some = subsets[:, int(numbers[0]) : int(numbers[-1]) + 1]
                copies = (len(numbers), *[1] * (shaped.ndim - 1))
                pixels = some.transpose(0, 1).flatten(0, 1)
                images = replace_pixels(shaped.repeat(copies), pixels, baseline.repeat(copies))
                images = images.reshape(-1, *inputs.shape[1:])
                targets = target.repeat(len(numbers))
                changed.append(model_output(model, images, targets, context, self.output, known=True))
        return SubsetDrops(subsets, clean[:, None] - torch.cat(changed).unflatten(0, (-1, len(inputs))).T)

    def check_inputs(self, inputs: Tensor) -> None:
        num_pixels = self._as_maps(inputs)[0, 0].numel()
        if self.subset_size > num_pixels:
            what = "values" if self.per_value else "pixels"
            raise ValueError(
                f"`subset_size` must be at most {num_pixels}, the {what} of an input; got {self.subset_size}."
            )

    def _as_maps(self, images: Tensor) -> Tensor:
        """With a channel axis; of one channel if every value is on its own."""
        return images.reshape(len(images), 1, -1) if self.per_value else by_channel(images)


def model_output(
    model: nn.Module, images: Tensor, target: Tensor, context: Context, watched: Watched, known: bool = False
) -> Scores:
    """The number of each image that is watched, in chunks that fit in memory; half precision is taken on in float32.

    NaN where any of an image's outputs is: the network does not know what it says.

    Args:
        known: Whether these classes have been outputs of the model before: to look waits for an accelerator.
    """
    known = known and target.device.type != "cpu"
    read = context.output.explained if watched == "explained" else context.output.probability

    def run(images: Tensor, target: Tensor) -> Tensor:
        raw = check_rows(model(images), len(images))
        wide = raw.to(torch.promote_types(raw.dtype, torch.float32))
        return read(wide, target, known).masked_fill(raw.isnan().reshape(len(raw), -1).any(1), torch.nan)

    return in_chunks(run, model, context.max_rows, images, target)
