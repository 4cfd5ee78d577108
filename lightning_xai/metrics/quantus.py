"""Any metric of Quantus as one of ours."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from quantus.metrics.base import Metric as Quantus
from torch import Tensor, nn

from lightning_xai.explainers.base import Context, Explainer, check_rows, explaining
from lightning_xai.explainers.chunks import check_takes_one_row, probe_rows, takes_whole_batches
from lightning_xai.explainers.precision import called_in_float32
from lightning_xai.explainers.precomputed import refuse_precomputed
from lightning_xai.explainers.state import seeded
from lightning_xai.functional.maps import all_finite, by_channel
from lightning_xai.metrics.base import SampleMetric
from lightning_xai.outputs import Logit, Output, Read


class QuantusMetric(SampleMetric):
    """The scores of a Quantus metric, sample by sample.

    Each sample is handed to Quantus on its own, in a copy. Scores then depend neither on the batch, as some of
    Quantus's do, nor on what the metric does to its input; and a metric that returns the mean of a batch returns the
    sample's score. Quantus draws from NumPy's global state: here it is seeded from the sample's key and put back
    afterwards. It explains again with the explainer under evaluation, with the noise draws used for the sample.

    A map with a NaN or an infinity scores NaN, and is not handed over.

    What compares the samples of a set with one another (Consistency, Sufficiency) has no score of one sample.

    Args:
        metric: A metric object of Quantus, with its own settings (`abs`, `normalize`, ...).
        higher_is_better: Direction of the metric.
        softmax: Whether Quantus sees the probabilities of the evaluation's `Output` instead of what is explained of
            each target.

    Raises:
        TypeError: if `metric` is no metric object of Quantus.

    Example:
        >>> import quantus
        >>> import torch
        >>> import lightning_xai as lx
        >>> from lightning_xai.metrics.quantus import QuantusMetric
        >>> model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), torch.rand(2, 1, 8, 8)
        >>> metric = QuantusMetric(quantus.Sparseness(disable_warnings=True), higher_is_better=True)
        >>> result = lx.evaluate(model, images, 0, {"gradient": lx.Gradient()}, {"sparseness": metric})
        >>> result.scores["gradient"]["sparseness"].shape
        torch.Size([2])
    """

    def __init__(
        self, metric: Quantus, higher_is_better: bool | None = None, softmax: bool = False, **kwargs: Any
    ) -> None:
        if not isinstance(metric, Quantus):
            raise TypeError(
                f"`metric` must be a metric object of Quantus, such as quantus.Sparseness(); got {metric!r}."
            )
        super().__init__(**kwargs)
        self.metric, self.softmax, self.direction = metric, softmax, higher_is_better

    @property
    def explains_again(self) -> bool:
        """Whether it asks for other maps; the few that do beside these are refused when they ask."""
        return str(self.metric.evaluation_category.value) in ("Robustness", "Randomisation")

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        """Direction of the metric, as given."""
        return self.direction

    def update(
        self,
        attributions: Tensor,
        *,
        inputs: Tensor,
        target: Tensor,
        model: nn.Module,
        explainer: Explainer,
        context: Context,
        mask: Tensor | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Score attributions (batch, channel, height, width) that `explainer` made of `inputs`."""
        scores = []
        read = self._read(model, inputs, context.output)
        with explaining(model), _one_row_only(model, inputs, type(self.metric).__name__):
            for i, finite in enumerate(all_finite(attributions).tolist()):
                row = slice(i, i + 1)
                if not finite:
                    scores.append(math.nan)
                    continue
                segmentation = None if mask is None else mask[row]
                scores.append(
                    self._score(
                        attributions[row],
                        inputs[row],
                        target[row],
                        segmentation,
                        model,
                        read,
                        explainer,
                        context.select(row),
                    )
                )
        self.record(torch.tensor(scores, device=self.device), index)

    def _score(
        self,
        attributions: Tensor,
        inputs: Tensor,
        target: Tensor,
        mask: Tensor | None,
        model: nn.Module,
        read: nn.Module,
        explainer: Explainer,
        context: Context,
    ) -> float:
        def explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
            refuse_precomputed({type(explainer).__name__: explainer}, f"{type(self.metric).__name__} explains again")
            images = torch.as_tensor(np.asarray(inputs)).to(attributions)
            model = model.model if isinstance(model, Read) else model
            return _array(explainer(model, images, torch.as_tensor(np.asarray(targets)).to(target), context))

        seed = int(context.private_keys("Quantus")[0])
        with seeded(seed, inputs.device), called_in_float32(model, inputs.dtype), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = self.metric(
                model=read,
                x_batch=_array(inputs),
                y_batch=_array(target),
                a_batch=_array(attributions),
                s_batch=None if mask is None else _array(mask.reshape(1, 1, *by_channel(inputs).shape[2:])),
                explain_func=explain,
                channel_first=True,
                softmax=self.softmax and read is model,
                device=inputs.device,
                batch_size=1,
            )
        return self._one_number(result)

    def _read(self, model: nn.Module, inputs: Tensor, output: Output) -> nn.Module:
        """What Quantus takes for the network: itself, if all that it does to the logits is a softmax."""
        with explaining(model), torch.no_grad():
            rows = probe_rows(model, inputs)
            raw = check_rows(model(rows), len(rows))
            read = Read(model, output.probabilities if self.softmax else output.scores)
            output.check(raw)
            return model if output == Logit() and raw.ndim == 2 and raw.shape[1] > 1 else read

    def _one_number(self, result: Any) -> float:
        values = np.asarray(result, dtype=float) if not isinstance(result, dict) else np.empty(0)
        if values.size != 1:
            raise ValueError(
                f"`metric`: {type(self.metric).__name__} must give one number for a sample, got {result!r}; choose "
                "settings in which it does."
            )
        return float(values.reshape(()))


@contextmanager
def _one_row_only(model: nn.Module, inputs: Tensor, who: str) -> Iterator[None]:
    """Refuses a network that does not take a sample alone, where the metric calls it: some never do."""

    def look(module: nn.Module, arguments: Any) -> None:
        check_takes_one_row(model, inputs, who)

    if len(inputs) == 1 or not takes_whole_batches(model, inputs):
        yield
        return
    if isinstance(model, torch.jit.ScriptModule):
        check_takes_one_row(model, inputs, who)
    handle = model.register_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()


def _array(tensor: Tensor) -> np.ndarray:
    """A copy in NumPy; half precision, which NumPy lacks in part, becomes float32."""
    half = tensor.is_floating_point() and tensor.itemsize < 4
    return (tensor.float() if half else tensor).detach().cpu().numpy().copy()
