"""What is explained: which number of a network's output, and what a class, a probability and a prediction are in it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lightning_xai.checks import check_kind, check_whole_number
from lightning_xai.shapes import Labels, Raw, Scores

__all__ = ["At", "LogProbability", "Logit", "Margin", "Of", "Output", "Probability", "Region", "Similarity"]

Columns = Float[Tensor, " batch targets"]
"""A number a sample and target."""


class Output(ABC):
    """What is explained of a network, and what its output means. Concrete outputs are frozen dataclasses.

    A concrete output says by `scores` which number is explained for each target that there is, and by `probabilities`
    which probability it has, if that has a meaning. All else follows from these: `explained`, `probability`,
    `prediction`, `check`. Every explainer, metric and check of an evaluation asks the same one, that of its context.

    Attributes:
        has_labels: Whether a sample's label is a target. Else there is nothing to choose, or not by a class.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> output, logits = lx.outputs.Probability(), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
        >>> output.explained(logits, torch.tensor([0, 1])), output.prediction(logits)
        (tensor([0.5000, 0.8808]), tensor([0, 1]))
    """

    has_labels: ClassVar[bool] = True

    @property
    def together(self) -> bool:
        """Whether several labels of a sample may hold together, which is declared and never guessed."""
        return getattr(self, "multi_label", True)

    @abstractmethod
    def scores(self, raw: Raw) -> Columns:
        """The number that is explained, for each target.

        Raises:
            ValueError: if the network's output `raw` is of another shape than this output is of.
        """

    def probabilities(self, raw: Raw) -> Columns:
        """The probability of each target.

        Raises:
            ValueError: if the output has none.
        """
        raise ValueError(
            f"`output` {self!r} has no probability, which a metric or a curve asks for: leave it out, let it watch "
            'what is explained (`output="explained"` of the metric), or explain a class (Logit, Probability, ...).'
        )

    def explained(self, raw: Raw, target: Labels, known: bool = False) -> Scores:
        """The number of each sample that is explained.

        Args:
            raw: What the network returns.
            target: The target of each sample.
            known: Whether the targets have been looked at before: to look waits for an accelerator.

        Raises:
            ValueError: as `check`.
        """
        return _pick(self.scores(raw), target, known)

    def probability(self, raw: Raw, target: Labels, known: bool = False) -> Scores:
        """The probability of each sample's target; arguments and errors as in `explained` and `probabilities`."""
        return _pick(self.probabilities(raw), target, known)

    def prediction(self, raw: Raw) -> Labels:
        """The target that the network predicts; 0 where there is but one."""
        return self.scores(raw).argmax(1)

    def check(self, raw: Raw, target: Int64[Tensor, " samples"] | None = None) -> None:
        """Refuse a network's output of another shape, and targets, of any samples, that it does not have.

        Raises:
            ValueError: if so.
        """
        number = self.scores(raw).shape[1]
        if target is not None:
            check_target(target, number)

    @property
    def key(self) -> str:
        """A name that is the same in every process, under which results may be kept.

        Raises:
            ValueError: if there is none.
        """
        return repr(self)


@dataclass(frozen=True)
class Logit(Output):
    """The target's logit: the default.

    Networks return (batch, classes). A single logit, (batch, 1) or (batch,), is that of a binary classifier with labels
    0 and 1: label 1 explains the logit, label 0 its negative. Labels as its loss takes them, 0.0 and 1.0 or booleans,
    also (batch, 1), will do. (Of a regression take `At`, whose number has no sides.)

    Attributes:
        multi_label: Whether each class is a question by itself, of which several may hold: probabilities are sigmoids,
            also of a single one. If not, they are a softmax, or of a single logit the sigmoid. It is never guessed.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> model = torch.nn.Linear(2, 1)
        >>> model.weight.data = torch.tensor([[1.0, -2.0]])
        >>> [lx.explain(model, torch.ones(1, 2), target=label, method=lx.Gradient()).tolist() for label in (1, 0)]
        [[[1.0, -2.0]], [[-1.0, 2.0]]]
    """

    multi_label: bool = False

    def scores(self, raw: Raw) -> Columns:
        return _logits(raw, self.multi_label)[0]

    def probabilities(self, raw: Raw) -> Columns:
        logits, exclusive = _logits(raw, self.multi_label)
        return logits.softmax(1) if exclusive else logits.sigmoid()


@dataclass(frozen=True)
class Probability(Output):
    """The target's probability: softmax of the logits, or sigmoid.

    Attributes:
        multi_label: As in `Logit`.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> lx.explain(torch.nn.Flatten(), torch.zeros(1, 2), 0, lx.Gradient(), output="probability")
        tensor([[ 0.2500, -0.2500]])
    """

    multi_label: bool = False

    def scores(self, raw: Raw) -> Columns:
        return self.probabilities(raw)

    def probabilities(self, raw: Raw) -> Columns:
        return Logit(self.multi_label).probabilities(raw)


@dataclass(frozen=True)
class LogProbability(Output):
    """The logarithm of the target's probability: the negative of the loss, cross entropy, of that label.

    Attributes:
        multi_label: As in `Logit`.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> lx.explain(torch.nn.Flatten(), torch.zeros(1, 2), 0, lx.Gradient(), output="log_probability")
        tensor([[ 0.5000, -0.5000]])
    """

    multi_label: bool = False

    def scores(self, raw: Raw) -> Columns:
        logits, exclusive = _logits(raw, self.multi_label)
        return logits.log_softmax(1) if exclusive else F.logsigmoid(logits)

    def probabilities(self, raw: Raw) -> Columns:
        return Logit(self.multi_label).probabilities(raw)


@dataclass(frozen=True)
class Margin(Output):
    """The target's logit less the greatest one of the other classes; of a single logit z, 2 z for label 1.

    Positive where the target is predicted. Probabilities are those of `Logit`.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> lx.explain(torch.nn.Flatten(), torch.tensor([[3.0, 1.0, 2.0]]), 0, lx.Gradient(), output="margin")
        tensor([[ 1.,  0., -1.]])
    """

    together = False  # type: ignore[assignment]

    def scores(self, raw: Raw) -> Columns:
        logits, _ = _logits(raw)
        best = logits.argmax(1, keepdim=True)
        first, second = logits.gather(1, best), logits.scatter(1, best, -torch.inf).amax(1, keepdim=True)
        return logits - torch.where(F.one_hot(best[:, 0], logits.shape[1]).bool(), second, first)

    def probabilities(self, raw: Raw) -> Columns:
        return Logit().probabilities(raw)


@dataclass(frozen=True)
class At(Output):
    """One element of each sample's output, whatever it is: a number of a regression, a place of a sequence or a map.

    It has one target, 0, no probability, and no label.

    Attributes:
        index: Its place in a sample's output, a number for each axis; nothing for outputs of shape (batch,).

    Raises:
        TypeError: if a place is no whole number.
        ValueError: when it reads an output, if that has no such element.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> lx.explain(torch.nn.Identity(), torch.ones(1, 2, 2), method=lx.Gradient(), output=lx.outputs.At((1, 0)))
        tensor([[[0., 0.],
                 [1., 0.]]])
    """

    has_labels = False
    index: int | tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for place in self._places():
            check_whole_number("index", place)
        object.__setattr__(self, "index", self._places())

    def scores(self, raw: Raw) -> Columns:
        index, sizes = self._places(), raw.shape[1:]
        fits = len(index) == len(sizes) and all(-size <= at < size for at, size in zip(index, sizes, strict=True))
        if not fits:
            raise ValueError(
                f"`output`: At({index}) must name an element of a sample's output, which has shape {tuple(sizes)}: "
                "give a number for each of its axes."
            )
        places: tuple[slice | int, ...] = (slice(None), *index)
        return raw[places][:, None]

    def _places(self) -> tuple[int, ...]:
        return tuple(self.index) if isinstance(self.index, Sequence) else (self.index,)


@dataclass(frozen=True)
class Region(Output):
    """Of a segmentation, (batch, classes, height, width): the mean logit of the target over a region.

    A single class is that of a binary segmentation: label 1 explains its logit, label 0 its negative.

    The prediction is the class with the greatest mean, or that of most positions where the region is the predicted one.
    It has no probability.

    Attributes:
        mask: Where, (height, width) booleans, for all samples; None for the positions at which the target is predicted,
            for the very input that passes through the network. Where it is predicted nowhere, the mean is 0, and
            constant. A map that averages over noise, or integrates along a path, had better have a mask.

    Raises:
        TypeError: if `mask` is no such tensor.
        ValueError: if it is empty; when called, if the network's output is of another shape.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> logits = torch.tensor([[[[2.0, 0.0]], [[1.0, 1.0]]]])  # class 0 is predicted at the first position alone
        >>> lx.outputs.Region().scores(logits), lx.outputs.Region(torch.tensor([[True, True]])).scores(logits)
        (tensor([[2., 1.]]), tensor([[1., 1.]]))
    """

    mask: Tensor | None = field(default=None, repr=False, compare=False)
    digest: str = field(default="predicted", init=False)

    def __post_init__(self) -> None:
        if self.mask is None:
            return
        if not isinstance(self.mask, Tensor) or self.mask.dtype != torch.bool:
            raise TypeError(f"`mask` must be a tensor of booleans, (height, width), or None; got {self.mask!r:.100}.")
        if not self.mask.any():
            raise ValueError("`mask` must be True somewhere: the mean is over its positions.")
        found = sha256(f"{tuple(self.mask.shape)}".encode() + self.mask.cpu().numpy().tobytes())
        object.__setattr__(self, "digest", found.hexdigest()[:16])

    def scores(self, raw: Raw) -> Columns:
        raw = _both_sides(raw)
        region = self._region(raw).to(raw.dtype)
        return (raw * region).flatten(2).sum(2) / region.flatten(2).sum(2).clamp(min=1)

    def prediction(self, raw: Raw) -> Labels:
        region = self._region(_both_sides(raw))
        return (region.flatten(2).sum(2) if self.mask is None else self.scores(raw)).argmax(1)

    def _region(self, raw: Raw) -> Tensor:
        """(batch or 1, classes or 1, height, width)."""
        if raw.ndim < 3 or (self.mask is not None and self.mask.shape != raw.shape[2:]):
            wanted = "height, width" if self.mask is None else ", ".join(map(str, self.mask.shape))
            raise ValueError(
                f"`output`: Region is of a segmentation, logits (batch, classes, {wanted}); `model` returned shape "
                f"{tuple(raw.shape)}."
            )
        if self.mask is not None:
            return self.mask.to(raw.device)[None, None]
        return F.one_hot(raw.argmax(1), raw.shape[1]).movedim(-1, 1).bool()


@dataclass(frozen=True)
class Similarity(Output):
    """Cosine of each sample's embedding (batch, dimensions) and a given one: of another picture, or of a mean of some.

    It has one target, 0, no probability, and no label. See Lin et al. 2021 and Sanyal et al. 2022 on embeddings.

    Attributes:
        embedding: The other one, (dimensions,); kept as numbers.

    Raises:
        ValueError: if it is no vector, or zero; when called, if the network's output is of another shape.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> output = lx.outputs.Similarity(torch.tensor([1.0, 0.0]))
        >>> lx.explain(torch.nn.Flatten(), torch.tensor([[0.0, 2.0]]), method=lx.Gradient(), output=output)
        tensor([[0.5000, 0.0000]])
    """

    has_labels = False
    embedding: Any

    def __post_init__(self) -> None:
        vector = torch.as_tensor(self.embedding).detach()
        if vector.ndim != 1 or not vector.isfinite().all() or not vector.any():
            raise ValueError(
                f"`embedding` must be a vector of finite numbers that is not zero, got shape {tuple(vector.shape)}: "
                "the network's output for a single sample, `model(inputs)[0]`."
            )
        object.__setattr__(self, "embedding", tuple(vector.double().tolist()))

    def scores(self, raw: Raw) -> Columns:
        if raw.shape[1:] != (len(self.embedding),):
            raise ValueError(
                f"`output`: Similarity has an embedding of {len(self.embedding)} numbers, but `model` returned shape "
                f"{tuple(raw.shape)}; it must be (batch, {len(self.embedding)})."
            )
        vector = torch.tensor(self.embedding, dtype=raw.dtype, device=raw.device)
        return F.cosine_similarity(raw, vector[None], dim=1)[:, None]


@dataclass(frozen=True, repr=False)
class Of(Output):
    """A function of the network's output, one differentiable number a sample, or one a target. It has no probability.

    Attributes:
        function: Makes (batch,) or (batch, targets) of what the network returns, each row of that row alone.

    Raises:
        TypeError: if it cannot be called; when called, if it makes no tensor.
        ValueError: when called, if that is of another shape.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> output = lx.outputs.Of(torch.Tensor.square)
        >>> lx.explain(torch.nn.Flatten(), torch.tensor([[3.0, 1.0]]), 0, method=lx.Gradient(), output=output)
        tensor([[6., 0.]])
    """

    has_labels = False
    function: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"`function` must be a function of the network's output, got {self.function!r:.100}.")

    def __repr__(self) -> str:
        return f"Of({_path(self.function) or repr(self.function)})"

    def scores(self, raw: Raw) -> Columns:
        made = self.function(raw)
        if not isinstance(made, Tensor):
            raise TypeError(f"`function` of {self!r} must make a tensor, got {type(made).__name__}.")
        if made.ndim not in (1, 2) or len(made) != len(raw):
            raise ValueError(
                f"`function` of {self!r} must make a number a sample, (batch,) or (batch, targets); got shape "
                f"{tuple(made.shape)} for {len(raw)} samples."
            )
        return made.view(len(raw), -1)

    @property
    def key(self) -> str:
        if _path(self.function) is None:
            raise ValueError(
                f"`output` {self!r} has no name that another process knows, under which results could be kept: define "
                "the function at the top level of a module."
            )
        return repr(self)


class Read(nn.Module):
    """A network whose output is what an `Output` makes of it: a column a target, for code that picks columns.

    Its parameters and modules are those of the network.
    """

    def __init__(self, model: nn.Module, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.output = model, _Reading(read)
        self.training = model.training

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output(self.model(inputs))


class _Reading(nn.Module):
    """A module, so that errors name the place, "output"."""

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.read = read
        self.training = False

    def forward(self, raw: Tensor) -> Tensor:
        return self.read(raw)


def binary_labels(labels: Tensor) -> Tensor:
    """Labels 0.0 and 1.0, or booleans, one a sample, as integers; others as they are."""
    told = labels.dtype == torch.bool or labels.is_floating_point()
    return labels.long() if told and labels.numel() == len(labels) and _are_binary(labels) else labels


def positive_labels(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Row and class of each label that holds, of (batch, classes) zeros and ones.

    Raises:
        ValueError: if they are something else.
    """
    if labels.ndim != 2 or not _are_binary(labels):
        raise ValueError(
            "Labels that hold together must be (batch, classes), each 0 or 1; got "
            f"{labels.dtype} of shape {tuple(labels.shape)}{', with other numbers' * (labels.ndim == 2)}."
        )
    rows, classes = labels.nonzero(as_tuple=True)
    return rows, classes


def check_width(number: int, num_outputs: int) -> None:
    """Refuse labels that hold together, of so many classes, where the model has another number of outputs."""
    if number != num_outputs:
        raise ValueError(
            f"Labels that hold together must be (batch, {num_outputs}), one for each of the outputs of the model; they "
            f"have {number} columns."
        )


def _are_binary(labels: Tensor) -> bool:
    return bool(((labels == 0) | (labels == 1)).all())


def check_target(target: Int64[Tensor, " samples"], num_classes: int) -> None:
    """Refuse class indices that are not outputs of the model."""
    least, most = torch.stack((target.min(), target.max())).tolist()  # one look at the device
    if least < 0 or most >= num_classes:
        raise ValueError(
            f"`target` must be in 0 .. {num_classes - 1}, the outputs of `model`, got values from {least} to {most}."
        )


def check_declared(output: Output) -> None:
    """Refuse labels that hold together where the output says that they exclude each other.

    Raises:
        ValueError: if so.
    """
    if not output.has_labels:
        raise ValueError(f"`target` has labels, (batch, classes), but `output` {output!r} has none.")
    if not output.together:
        raise ValueError(
            f"`target` has labels that hold together, but of `output` {output!r} one label excludes the others (a "
            "softmax). Declare them: lightning_xai.outputs.Logit(multi_label=True), or Probability or LogProbability; "
            "in YAML {class_path: lightning_xai.outputs.Logit, init_args: {multi_label: true}}."
        )


def check_excluding(output: Output) -> None:
    """Refuse an output whose sample has not one class: none, or several that hold together.

    Raises:
        ValueError: if so.
    """
    if not output.has_labels or getattr(output, "multi_label", False):
        why = "several classes of a sample may hold together" if output.has_labels else "it has no classes"
        raise ValueError(
            f"`output` {output!r} does not say which one class is predicted: {why}. Take "
            "lightning_xai.outputs.Logit(), or look at each label by itself, as the one logit of a model of its own."
        )


def named_output(given: Any) -> Output:
    """An output, or that of a plain name: "logit", "probability", "log_probability", "margin", "region".

    Raises:
        ValueError: if the name is unknown, or needs arguments.
        TypeError: if it is neither.
    """
    from lightning_xai.names import made  # which knows this room

    output = made("outputs", given)
    check_kind("output", output, Output, 'an Output, such as lightning_xai.outputs.Probability(), or "probability"')
    return output


def _logits(raw: Raw, multi_label: bool = False) -> tuple[Columns, bool]:
    """Logits of all classes, and whether they exclude each other by a softmax; both sides of a single one."""
    if raw.ndim not in (1, 2):
        raise ValueError(
            f"`model` must return logits (batch, classes), got shape {tuple(raw.shape)} for {len(raw)} samples. Of "
            "other outputs say what is explained: `output`, one of lightning_xai.outputs, such as At or Region."
        )
    logits = raw if raw.ndim == 2 else raw[:, None]
    if multi_label or logits.shape[1] > 1:
        return logits, not multi_label
    return torch.cat([-logits, logits], 1), False


def _both_sides(raw: Raw) -> Tensor:
    """Of a single logit at each position those of both labels."""
    return torch.cat([-raw, raw], 1) if raw.ndim > 2 and raw.shape[1] == 1 else raw


def _pick(columns: Columns, target: Labels, known: bool) -> Scores:
    if not known:
        check_target(target, columns.shape[1])
    return columns.gather(1, target[:, None])[:, 0]


def _path(function: Any) -> str | None:
    """Where others find it; None for lambdas, and what is defined within a function or made by a call."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if name is None or "<" in name:
        return None
    return name if module is None else f"{module}.{name}"
