"""The parameters of a model in blocks, in the order in which the model uses them: what a sanity check randomizes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_xai.explainers.base import check_choice, check_inputs, explaining
from lightning_xai.explainers.chunks import probe_rows
from lightning_xai.explainers.state import seeded
from lightning_xai.shapes import Inputs

Ordering = Literal["cascading_from_top", "cascading_from_bottom", "independent", "full"]
Division = Literal["stages", "layers"]

MOST_STAGES = 12
"""Of a network that is divided into stages."""

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Normalization layers: batch, instance, layer, group and root mean square."""


@dataclass(frozen=True)
class Block:
    """Parameters that are randomized together.

    Attributes:
        name: That of the module, or of the group.
        position: The place in execution order, from the input on; its random numbers depend on it.
        parameters: Names of the parameters, as `model.get_parameter` takes them.
        norms: Names of the normalization modules that belong to the block.
    """

    name: str
    position: int
    parameters: tuple[str, ...]
    norms: tuple[str, ...] = ()


def parameter_blocks(
    model: nn.Module, inputs: Inputs, groups: Mapping[str, Sequence[str]] | Division = "layers"
) -> tuple[Block, ...]:
    """The model's parameters in blocks, every parameter in one, from the input to the output.

    A block is what one module has of its own and uses without another block between. What a module has that is never
    called itself (the projections of `nn.MultiheadAttention`) counts as the enclosing module's. Normalization layers
    join the block that runs before them (the first one, if they lead), since the published checks count convolution
    and batch normalization as one layer. A module that runs several times has its place where it runs first, and a
    tied parameter belongs to the module that runs first. Parameters that the model does not use go with the parameter
    registered before them, so that no block is without effect.

    Args:
        model: Run once on a copy, in evaluation mode.
        inputs: A batch that the model takes; one row is used.
        groups: "stages" joins the blocks of a network that has more than twelve to at most so many: what stands under
            one name, as the stages of a ResNet or some successive blocks of a ViT, "blocks.0-1". Or blocks by name,
            each with patterns (as in shells) of the names of parameters or of modules that hold them, in any order;
            what several groups match belongs to the first of them.

    Raises:
        ValueError: if some parameters cannot be initialized, `groups` leave some out, or a group is empty.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_xai.sanity import parameter_blocks
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> [(block.name, block.parameters) for block in parameter_blocks(model, torch.rand(2, 4))]
        [('0', ('0.weight', '0.bias')), ('2', ('2.weight', '2.bias'))]
    """
    check_inputs(inputs)
    copied = copy_model(model)
    drafts = _divide(copied, _trace(copied, probe_rows(model, inputs)))
    if isinstance(groups, str):
        check_choice("groups", groups, Division)
        drafts = _stages(drafts) if groups == "stages" else drafts
    else:
        drafts = _group(drafts, groups)
    return tuple(_block(copied, name, position, members) for position, (name, members) in enumerate(drafts.items()))


def steps(blocks: Sequence[Block], ordering: Ordering) -> list[tuple[str, tuple[Block, ...]]]:
    """The steps of a check: a name (the block that is new, "all" for `full`), and the blocks randomized at it.

    "cascading_from_top" starts at the output and adds one block a step, "cascading_from_bottom" at the input;
    "independent" randomizes one block at a time, "full" all at once.

    Raises:
        ValueError: if the ordering is unknown.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_xai.sanity import parameter_blocks, steps
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> blocks = parameter_blocks(model, torch.rand(2, 4))
        >>> [(name, [block.name for block in some]) for name, some in steps(blocks, "cascading_from_top")]
        [('2', ['2']), ('0', ['0', '2'])]
    """
    check_choice("ordering", ordering, Ordering)
    blocks = tuple(sorted(blocks, key=lambda block: block.position))
    if ordering == "full":
        return [("all", blocks)]
    if ordering == "independent":
        return [(block.name, (block,)) for block in blocks]
    if ordering == "cascading_from_bottom":
        return [(block.name, blocks[: number + 1]) for number, block in enumerate(blocks)]
    return [(block.name, blocks[number:]) for number, block in reversed(list(enumerate(blocks)))]


def copy_model(model: nn.Module) -> nn.Module:
    """A deep copy that takes part in backward passes, also made in `torch.inference_mode`.

    Raises:
        ValueError: if the model cannot be copied, or has parameters that cannot be initialized.
    """
    _check_model(model)
    trainers = (getattr(module, "_trainer", None) for module in model.modules())  # with data and callbacks: not copied
    try:
        with torch.inference_mode(False):
            return deepcopy(model, {id(trainer): trainer for trainer in trainers})
    except Exception as error:
        raise ValueError(
            f"`model` ({type(model).__name__}) must be one that copy.deepcopy can copy, so that it can be randomized "
            f"without being changed. It said: {error}"
        ) from error


def _check_model(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(f"`model` must be plain modules, but {name or 'it'!r} is TorchScript; give the original.")
        if ".quantized." in type(module).__module__:
            raise ValueError(
                f"`model` must have floating-point weights, but {name or 'it'!r} is quantized "
                f"({type(module).__name__}); give the model from before quantization."
            )
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(f"`model` has a parameter without a shape yet, {name!r}; run a batch through it first.")
        if not parameter.is_floating_point():
            raise ValueError(f"`model` must have floating-point parameters, but {name!r} is {parameter.dtype}.")
    if next(model.parameters(), None) is None:
        raise ValueError(f"`model` ({type(model).__name__}) must have parameters, but has none to randomize.")


# Execution order


class _FirstUses(TorchDispatchMode):
    """While active: in which order parameters reach an operation for the first time; `note` adds modules."""

    def __init__(self) -> None:
        super().__init__()
        self.place: dict[int, int] = {}

    def note(self, thing: object) -> None:
        self.place.setdefault(id(thing), len(self.place))

    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, nn.Parameter):
                self.note(leaf)
        return func(*args, **(kwargs or {}))


def _trace(model: nn.Module, row: Inputs) -> dict[int, int]:
    """Places in execution order of the modules that are called and the parameters that are used, by id."""
    uses = _FirstUses()
    for module in model.modules():
        if not isinstance(module, ParametrizationList):  # a part of the layer whose weight it makes
            module.register_forward_pre_hook(lambda module, _: uses.note(module))
    with explaining(model), seeded(0, row.device), uses:
        model(row)
    return uses.place


@dataclass
class _Draft:
    """A block in the making: `module` is None while it has normalization alone."""

    module: str | None = None
    members: list[str] = field(default_factory=list)


def _divide(model: nn.Module, place: dict[int, int]) -> dict[str, list[str]]:
    """The members of each block of a model that was traced: parameters, and normalization layers without any."""
    drafts: list[_Draft] = []
    for member, module in _members(model, place):
        norm = isinstance(model.get_submodule(module), NORMS)
        if not drafts or not (norm or drafts[-1].module in (None, module)):
            drafts.append(_Draft())
        drafts[-1].members.append(member)
        drafts[-1].module = drafts[-1].module if norm else module
    if not drafts:
        raise ValueError("`model` used none of its parameters when it was run on `inputs`.")
    _add_unused(model, [draft.members for draft in drafts])
    counts = Counter(draft.module for draft in drafts)
    return {_title(draft, counts): draft.members for draft in drafts}


def _members(model: nn.Module, place: dict[int, int]) -> list[tuple[str, str]]:
    """What the model uses, in the order of first use, each with the module that it counts as part of."""
    found = []
    for names in _aliases(model):
        first = place.get(id(model.get_parameter(names[0])))
        if first is not None:
            modules = {name: _enclosing(model, place, name) for name in names}
            name = min(names, key=lambda name: place.get(id(model.get_submodule(modules[name])), first))
            found.append((first, name, modules[name]))
    for name, module in model.named_modules():
        if isinstance(module, NORMS) and id(module) in place and not list(module.parameters()):
            found.append((place[id(module)], name, name))
    return [(member, module) for _, member, module in sorted(found)]


def _aliases(model: nn.Module) -> list[list[str]]:
    """The names of each parameter, in the order of registration; a tied one has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return list(names.values())


def _enclosing(model: nn.Module, place: dict[int, int], parameter: str) -> str:
    """The nearest module around a parameter that is called, or normalizes; the model, "", always is."""
    name = parameter.rpartition(".")[0]
    while name:
        module = model.get_submodule(name)
        if id(module) in place or isinstance(module, NORMS):
            break
        name = name.rpartition(".")[0]
    return name


def _add_unused(model: nn.Module, blocks: list[list[str]]) -> None:
    """Put each parameter that is in no block into that of the parameter registered before it."""
    homes = {name: block for block in blocks for name in block}
    home = blocks[0]
    for names in _aliases(model):
        known = [homes[name] for name in names if name in homes]
        home = known[0] if known else home
        if not known:
            home.append(names[0])


def _title(draft: _Draft, counts: Mapping[str | None, int]) -> str:
    """The module's name; that of a parameter where the module has no name, or several blocks."""
    if draft.module and counts[draft.module] == 1:
        return draft.module
    inside = "" if draft.module is None else draft.module
    return next((name for name in draft.members if name.rpartition(".")[0] == inside), draft.members[0])


def _block(model: nn.Module, name: str, position: int, members: Sequence[str]) -> Block:
    known = {name for names in _aliases(model) for name in names}
    modules = [name.rpartition(".")[0] if name in known else name for name in members]
    norms = [name for name in dict.fromkeys(modules) if isinstance(model.get_submodule(name), NORMS)]
    return Block(name, position, tuple(name for name in members if name in known), tuple(norms))


# Groups


def _stages(drafts: dict[str, list[str]]) -> dict[str, list[str]]:
    """The members of at most twelve groups of blocks, by the names of the modules around them.

    From the whole network on, the group of the most blocks is divided into those that the next part of their names
    tells apart, or where these are too many, into runs of them; until there are four and none has over three quarters
    of the blocks.
    """
    if len(drafts) <= MOST_STAGES:
        return drafts
    groups, undivided = {"": list(drafts)}, set[str]()
    while True:
        divisible = [name for name, own in groups.items() if len(own) > 1 and name not in undivided]
        name = max(divisible, key=lambda name: len(groups[name]), default=None)
        room = MOST_STAGES + 1 - len(groups)
        if name is None or room < 2 or (len(groups) >= 4 and len(groups[name]) <= 0.75 * len(drafts)):
            break
        parts: dict[str, list[str]] = {}
        for title in groups.pop(name):
            parts.setdefault(".".join(title.split(".")[: name.count(".") + 1 + bool(name)]), []).append(title)
        if len(parts) > room:
            parts = _runs(parts, room)
            undivided.update(parts)
        groups |= parts
    places = {title: place for place, title in enumerate(drafts)}
    ordered = sorted(groups, key=lambda name: places[groups[name][0]])
    return {name: [member for title in groups[name] for member in drafts[title]] for name in ordered}


def _runs(parts: Mapping[str, list[str]], number: int) -> dict[str, list[str]]:
    """At most so many groups of successive parts, named by the first and the last: "blocks.0-1"."""
    names, runs = list(parts), {}
    size = -(-len(names) // number)
    for start in range(0, len(names), size):
        some = names[start : start + size]
        end = f"-{some[-1].rpartition('.')[2]}" if len(some) > 1 else ""
        runs[some[0] + end] = [title for name in some for title in parts[name]]
    return runs


def _group(drafts: Mapping[str, list[str]], groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The members of the blocks in groups instead, in the order of each group's first member."""
    if any(isinstance(patterns, str) for patterns in groups.values()):
        raise TypeError(f"`groups` must map names to lists of patterns, such as {{'stem': ['conv1*']}}, got {groups}.")
    grouped: dict[str, list[str]] = {}
    left_out = []
    for member in (member for members in drafts.values() for member in members):
        group = next((group for group, patterns in groups.items() if _matches(member, patterns)), None)
        if group is None:
            left_out.append(member)
        else:
            grouped.setdefault(group, []).append(member)
    empty = [f"{group!r} ({', '.join(patterns)})" for group, patterns in groups.items() if group not in grouped]
    if empty:
        raise ValueError(
            f"`groups` must each have something of `model` for itself, but {', '.join(empty)} has nothing. The blocks "
            f"of `model` are {', '.join(drafts)}."
        )
    if left_out:
        raise ValueError(f"`groups` must have a place for everything in `model`, but leave out: {', '.join(left_out)}.")
    return grouped


def _matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the name, or that of a module around it."""
    parts = name.split(".")
    names = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
