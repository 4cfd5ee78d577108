"""Metrics of maps beside other maps, which a study names by their class path."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.explainers import Explainer, Smooth
from lightning_xai.explainers.base import Context, check_choice
from lightning_xai.metrics import SampleMetric
from lightning_xai.sanity.similarity import SIMILARITIES


class MapSimilarity(SampleMetric):
    """How alike a map is to that of another method, for the same class and with the same noise.

    Args:
        method: The other one; its maps are made again for each method that is scored.
        similarity: A name in `sanity.similarity.SIMILARITIES`.

    Raises:
        ValueError: if there is no such similarity.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> from lightning_xai.studies.metrics import MapSimilarity
        >>> model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), torch.rand(2, 1, 8, 8)
        >>> methods, like = {"saliency": lx.Saliency()}, MapSimilarity(lx.Gradient(), "spearman_absolute")
        >>> lx.evaluate(model, images, 0, methods, {"like": like}).scores["saliency"]["like"]
        tensor([1., 1.])
    """

    higher_is_better = None

    def __init__(self, method: Explainer, similarity: str = "spearman", **kwargs: Any) -> None:
        check_choice("similarity", similarity, SIMILARITIES)
        super().__init__(**kwargs)
        self.method, self.similarity = method, similarity

    def update(
        self,
        attributions: Tensor,
        *,
        model: nn.Module,
        inputs: Tensor,
        target: Tensor,
        context: Context,
        index: Tensor | None = None,
    ) -> None:
        """Score a batch; the arguments are those that every metric of a network has."""
        other = self.method(model, inputs, target, context)
        self.record(SIMILARITIES[self.similarity](other, attributions), index)


class RelativeError(SampleMetric):
    """Monte-Carlo error of a map: ‖standard error‖ / ‖mean‖ over the draws of the explainer's input noise.

    The draws are made again. Undefined for explainers that are no `Smooth`, and for a single draw.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> from lightning_xai.studies.metrics import RelativeError
        >>> model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), torch.rand(2, 1, 8, 8)
        >>> methods = {"smooth_grad": lx.smooth_grad(num_draws=4)}
        >>> lx.evaluate(model, images, 0, methods, {"error": RelativeError()}).scores["smooth_grad"]["error"]  # linear
        tensor([0., 0.])
    """

    higher_is_better = False

    def update(
        self,
        attributions: Tensor,
        *,
        explainer: Explainer,
        model: nn.Module,
        inputs: Tensor,
        target: Tensor,
        context: Context,
        index: Tensor | None = None,
    ) -> None:
        """Score a batch; the arguments are those that every metric of a network and its explainer has."""
        scores = torch.full((len(attributions),), torch.nan)
        if isinstance(explainer, Smooth) and explainer.num_draws > 1:
            scores = explainer.moments(model, inputs, target, context).relative_error
        self.record(scores, index)
