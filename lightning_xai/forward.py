"""Any network as one that takes a tensor and returns a tensor: what explainers and metrics know."""

from collections.abc import Mapping
from copy import copy
from inspect import Parameter, signature
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from lightning_xai.checks import check_kind
from lightning_xai.shapes import Inputs, Maps, Masks


class Forward(nn.Module):
    """A network with other arguments, or another result, as one from a tensor to a tensor.

    Its parameters and modules are those of the network: noise on weights, checks with random weights, methods of a
    layer and all that puts a network back see the real ones, under names with "model." in front.

    Of several arguments one is explained. The others are carried along, each sample's with its row: a batch is then
    explained as it is, one copy at a time (`evaluate` and the callbacks take those of each batch), and whatever sends
    other numbers of rows through the network is refused by name: `max_rows` below the batch, methods that take one
    sample at a time, and those of Captum that lengthen the batch.

    Args:
        model: The network.
        key: Which part of its result: a key of a dictionary, the name of an attribute, or the place in a tuple; None
            for a tensor, or else the `logits` of it (as of transformers).
        explained: Name of the argument that is explained; None for the first.
        carried: The others, by name: tensors have a row a sample; anything else is passed as it is.
        batch: Whether the network takes all of them together, as one dictionary: `forward(batch)`.
        present: Name of what is carried that says which places of an input are there, (samples, places): the
            `attention_mask` of tokens. Metrics that delete and insert places leave the others, padding, alone. (Other
            metrics count padding as places, with the attribution that it gets, 0 where the network does not look at it:
            for sparseness and the like evaluate inputs of one length together.)
        call: Name of a method or a part, "encoder.head", that is called in the place of the network: for modules
            without `forward`.

    Raises:
        TypeError: if an argument is of another type; when called, if the result has no such part.
        ValueError: if `batch` has no name of what is explained, `model` nothing called `call`, or no argument of a name
            given; when called, if what is carried has other rows than the inputs.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> class Scaled(torch.nn.Module):
        ...     def forward(self, pixels, scale):
        ...         return {"logits": pixels.flatten(1) * scale[:, None]}
        >>> net = lx.Forward(Scaled(), explained="pixels", carried={"scale": torch.tensor([1.0, 3.0])})
        >>> lx.explain(net, torch.ones(2, 1, 1, 2), target=0, method=lx.Gradient()).flatten(1)
        tensor([[1., 0.],
                [3., 0.]])
    """

    def __init__(
        self,
        model: nn.Module,
        key: str | int | None = None,
        explained: str | None = None,
        carried: Mapping[str, Any] | None = None,
        batch: bool = False,
        call: str | None = None,
        present: str | None = None,
    ) -> None:
        check_kind("model", model, nn.Module, "a torch.nn.Module")
        check_kind("carried", {} if carried is None else carried, Mapping, "arguments by name, such as {'mask': mask}")
        super().__init__()
        if batch and explained is None:
            raise ValueError("`explained` must name the entry of the dictionary that is explained, since `batch` is.")
        self.model, self.key, self.explained = model, key, explained
        self.carried, self.batch, self.call, self.present = dict(carried or {}), batch, call, present
        self.training = model.training
        function = self._function()
        if not batch:
            _check_names(function, {"explained": [explained] if explained else [], "carried": list(self.carried)})

    def forward(self, inputs: Inputs) -> Tensor:
        named = {name: self._carried(name, value, inputs) for name, value in self.carried.items()}
        if self.explained is None:
            return self._part(self._function()(inputs, **named))
        named[self.explained] = inputs
        return self._part(self._function()(named) if self.batch else self._function()(**named))

    def select(self, rows: slice | Tensor) -> "Forward":
        """The same network with what is carried along with these rows."""
        return self.carrying({name: value[rows] if has_rows(value) else value for name, value in self.carried.items()})

    def carrying(self, carried: Mapping[str, Any]) -> "Forward":
        """The same network, with its hooks, that carries along something else."""
        other = copy(self)
        other.carried = dict(carried)
        return other

    def _function(self) -> Any:
        try:
            return self.model if self.call is None else attrgetter(self.call)(self.model)
        except AttributeError as error:
            raise ValueError(
                f"`call` must name a method or a part of `model`; {type(self.model).__name__} has no {self.call!r}."
            ) from error

    def _carried(self, name: str, value: Any, inputs: Inputs) -> Any:
        if not has_rows(value):
            return value
        if len(value) != len(inputs):
            raise ValueError(
                f"`carried`: {name!r} has {len(value)} rows, but {len(inputs)} inputs pass through the network: give a "
                "row for each sample. Methods that send other numbers of rows than the batch has cannot explain it."
            )
        return value.to(inputs.device)

    def _part(self, result: Any) -> Tensor:
        if self.key is None and isinstance(result, Tensor):
            return result
        key = "logits" if self.key is None else self.key
        part = _look_up(result, key)
        if isinstance(part, Tensor):
            return part
        asked = "`key` must be given" if self.key is None else f"`key` {key!r} must name a tensor"
        raise TypeError(f"{asked}: `model` returned {_described(result)}.")


def _check_names(function: Any, names: Mapping[str, list[str]]) -> None:
    """Refuse names that are no arguments of a network, as far as it says which it has."""
    try:
        known = signature(getattr(function, "forward", function)).parameters
    except (TypeError, ValueError):
        return
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for argument, given in names.items():
        if wrong := [name for name in given if name not in known]:
            raise ValueError(
                f"`{argument}`: {wrong[0]!r} is no argument of {type(function).__name__}, which has {', '.join(known)}."
            )


def rows_of(model: nn.Module, rows: slice | Tensor) -> nn.Module:
    """The network for some of the samples, where it carries something along."""
    return model.select(rows) if isinstance(model, Forward) and model.carried else model


def carrying(model: nn.Module, carried: Mapping[str, Any] | None) -> nn.Module:
    """The network with what some samples carry along."""
    return model.carrying(carried) if carried and isinstance(model, Forward) else model


def present_places(model: nn.Module, maps: Maps) -> Masks | None:
    """Which places of the maps are there; None for all of them.

    Raises:
        ValueError: if what says it is not carried along, or of another shape.
    """
    if not isinstance(model, Forward) or model.present is None:
        return None
    found = model.carried.get(model.present)
    if not isinstance(found, Tensor) or found.shape != maps.shape:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"only {', '.join(model.carried)}"
        raise ValueError(
            f"`present`: {model.present!r} must be carried along, of shape {tuple(maps.shape)}, a row a sample and a "
            f"column a place; got {got}."
        )
    return found.to(maps.device).bool()


def has_rows(value: Any) -> bool:
    """Whether it is a tensor with a row for each sample."""
    return isinstance(value, Tensor) and value.ndim > 0


def _look_up(result: Any, key: str | int) -> Any:
    if isinstance(key, int):
        return result[key] if isinstance(result, list | tuple) and -len(result) <= key < len(result) else None
    return result.get(key) if isinstance(result, Mapping) else getattr(result, key, None)


def _described(result: Any) -> str:
    kind = type(result).__name__
    if isinstance(result, Mapping):
        return f"{kind} with {', '.join(map(repr, result))}"
    if isinstance(result, list | tuple) and not hasattr(result, "_fields"):
        return f"{kind} of {', '.join(type(part).__name__ for part in result)}"
    names = getattr(result, "_fields", ()) or getattr(result, "__dict__", ())
    return f"{kind} with {', '.join(names)}"
