"""Maps that were made elsewhere: read from files or asked of a function, by the number of the sample."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_xai.explainers.base import Context, Explainer, check_index, check_inputs, context_of
from lightning_xai.explainers.cost import chain
from lightning_xai.functional.devices import sent
from lightning_xai.shapes import Inputs, Labels, Targets

Key = tuple[int, int | None]
"""A sample, and the class that its map explains; None where the map is for whatever class."""
Place = tuple[Path, str | int | None]
"""A file, and what of it is meant: a name, a row, or all."""

_SAMPLE = re.compile(r"(-?\d+)(?:/(\d+))?")
_KINDS = (".safetensors", ".npy", ".npz")
_ERRORS = (SafetensorError, ValueError, EOFError, OSError, TypeError)
"""What readers raise; a broken archive is one of OSError or ValueError."""


class NoModel(nn.Module):
    """Stands where a network would, for maps and metrics that need none; whoever asks it anything is refused."""

    def forward(self, inputs: Tensor) -> NoReturn:
        raise TypeError(
            "`model` must be a torch.nn.Module from a batch to logits, got None. It may be None only where `target` is "
            "given, methods have their maps already (Precomputed) or look at no network (controls), and metrics need "
            "none."
        )


@dataclass(frozen=True, repr=False)
class Precomputed(Explainer):
    """Maps that were made elsewhere, by the sample's index (and the class explained, where they have one).

    No network is asked and no gradient taken: `model` may be None. What the maps are of is not known here, so that
    whatever needs other maps is refused by name: smoothing, noise on weights, path integrals, metrics that explain
    again (robustness), sanity checks. The share of out-of-range noise is undefined.

    `path` is one of

    - a `.safetensors` file, or a folder of them, whose names are sample indices, "17", or index and class, "17/3";
    - the folder `maps` of `lightning-xai explain`, whose samples have the index and the class that the files say;
    - a folder of `.npy` files called by the index, 17.npy, or by index and class, 17/3.npy;
    - a `.npy` file of all samples, (samples, ...), whose row is the index;
    - a `.npz` file with one array a sample, named "17" or "17/3", or with an array of all samples, in which case
      arrays `index` and `target` may say which samples, and which classes; it is read whole for every batch;
    - a function of the index, or of index and class.

    A map has the shape of an input, or is summed over the channels: (height, width) or (1, height, width) of images
    (channel, height, width). It is then spread evenly over the channels, the last one taking what rounding left over,
    so that their sum is the map again, exactly for up to three channels. Half and double precision are converted to
    the type of the inputs.

    Attributes:
        path: Where the maps are.
        method: Which maps of the files that `lightning-xai explain` wrote; None where they have those of one method.

    Raises:
        TypeError: if `path` is of another type; when called, if a map is not of floating-point numbers.
        ValueError: if there is no such file or folder; when called, if files or names are not as above, a sample or its
            map of the class is missing, or a map has another shape or a value that is not finite.

    Example:
        >>> import torch
        >>> import lightning_xai as lx
        >>> method = lx.explainers.Precomputed(lambda index: torch.full((2, 2), float(index)))
        >>> images, index = torch.rand(2, 1, 2, 2), torch.tensor([5, 8])
        >>> method(None, images, index=index)[:, 0, 0, 0]
        tensor([5., 8.])
        >>> evaluation = lx.evaluate(torch.nn.Flatten(), images, 0, {"theirs": method}, ["sparseness"], index=index)
        >>> evaluation.means()["theirs"]
        {'sparseness': 0.0, 'gradients': 0.0}
    """

    path: str | Path | Callable[..., Any]
    method: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.path):
            if not isinstance(self.path, str | os.PathLike):
                raise TypeError(f"`path` must be a path, or a function of the index, got {self.path!r:.100}.")
            if not Path(self.path).exists():
                raise ValueError(f"`path`: there is no file or folder {str(self.path)!r}.")
            if Path(self.path).is_file() and Path(self.path).suffix not in _KINDS:
                raise ValueError(f"`path`: {str(self.path)!r} must be a folder, or a file {', '.join(_KINDS)}.")
        elif _num_arguments(self.path) not in (1, 2):
            raise TypeError(f"`path` must be a function of the index, or of index and class, got {self.path!r:.100}.")

    def __call__(
        self,
        model: nn.Module | None,
        inputs: Inputs,
        target: Targets | int | None = None,
        context: Context | None = None,
        **given: Any,
    ) -> Inputs:
        """The maps of the samples, as `Explainer.__call__`; `model` and `target` count only where maps have a class."""
        if self.by_class:
            return super().__call__(NoModel() if model is None else model, inputs, target, context, **given)
        check_inputs(inputs)
        context = context_of(inputs, context, **given)
        return self.attribute(NoModel(), inputs, torch.zeros(len(inputs), dtype=torch.int64), context)

    def attribute(self, model: nn.Module, inputs: Inputs, target: Labels, context: Context) -> Inputs:
        if context.index is None:
            raise ValueError(
                "`explainer`: Precomputed has the maps of the samples themselves, and not of their noisy copies, of "
                "points on a path or under noisy weights: smooth where the maps are made."
            )
        keys = list(zip(context.index.tolist(), target.tolist(), strict=True))
        maps = self._asked(keys) if callable(self.path) else self._read(keys, inputs.shape[1:])
        fitted = [_fitted(found, inputs, index) for found, (index, _) in zip(maps, keys, strict=True)]
        return sent(torch.stack(fitted), inputs.device)

    def noise_std(self, inputs: Inputs, context: Context) -> Tensor | None:
        """NaN: how the maps were made is not known."""
        return inputs.new_full((), torch.nan)

    @property
    def by_class(self) -> bool:
        """Whether the maps are of one class each."""
        if callable(self.path):
            return _num_arguments(self.path) == 2
        return any(target is not None for _, target in self._places)

    @cached_property
    def _places(self) -> Mapping[Key, Place]:
        return _Listing(Path(self.path), self.method).places()  # type: ignore[arg-type]

    @cached_property
    def _content(self) -> str:
        """A short name of what the files hold: of their names, their sizes and samples of their bytes."""
        digest, files = hashlib.sha256(), sorted({path for path, _ in self._places.values()})
        spots, root = max(1, 1024 // len(files)), cast(Path, self.path)
        for path in files:
            size = path.stat().st_size
            digest.update(f"{os.path.relpath(path, root)} {size}".encode())
            with path.open("rb") as file:
                for spot in range(spots):
                    file.seek(size * (2 * spot + 1) // (2 * spots))
                    digest.update(file.read(4096))
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        """With what the maps are, so that results of other maps in the same place are told apart."""
        if callable(self.path):
            return (
                f"Precomputed({getattr(self.path, '__module__', '')}.{getattr(self.path, '__qualname__', self.path)})"
            )
        return f"Precomputed({str(self.path)!r}, method={self.method!r}, content={self._content!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "method": self.method}  # not the listing, which is long

    def _asked(self, keys: list[Key]) -> Iterator[Any]:
        for index, target in keys:
            given = (index, target) if self.by_class else (index,)
            try:
                found = self.path(*given)  # type: ignore[operator]
            except LookupError as error:
                raise ValueError(f"`path`: the function has no map of sample {index}: {error!r:.100}.") from error
            if found is None:
                raise ValueError(f"`path`: the function has no map of sample {index}: it gave None.")
            yield found

    def _read(self, keys: list[Key], shape: torch.Size) -> list[Any]:
        """In the order of the keys; every file is opened once."""
        by_file: dict[Path, list[tuple[int, str | int | None]]] = {}
        for row, key in enumerate(keys):
            path, name = self._place(*key)
            by_file.setdefault(path, []).append((row, name))
        found: dict[int, Any] = {}
        for path, wanted in by_file.items():
            with _opened(path, shape) as read:
                found |= {row: read(name) for row, name in wanted}
        return [found[row] for row in range(len(keys))]

    def _place(self, index: int, target: int | None) -> Place:
        place = self._places.get((index, target)) or self._places.get((index, None))
        if place is None:
            others = sorted(c for i, c in self._places if i == index and c is not None)
            known = sorted({i for i, _ in self._places})
            raise ValueError(
                f"`path`: {str(self.path)!r} has maps of sample {index} for class {', '.join(map(str, others))}, but "
                f"class {target} is explained: give `target` as it was where they were made."
                if others
                else f"`path`: {str(self.path)!r} has no map of sample {index}, but of {len(known)} samples from "
                f"{known[0]} to {known[-1]}. They are found by `index`, which is the row in the data set unless it is "
                "given."
            )
        return place


def save_maps(
    path: str | os.PathLike[str], maps: Inputs, index: Labels, target: Labels | None = None, part: str | None = None
) -> Path:
    """Write maps that `Precomputed` reads, bit for bit: a `.safetensors` file, or a part of a folder of them.

    Args:
        path: The file; or the folder, if `part` is given.
        maps: (batch, ...), of any floating-point type.
        index: (batch,) int64, the samples' indices.
        target: (batch,) int64, the classes that they explain; None if they shall stand for any class.
        part: The name of the file in the folder. A part of the same name is replaced.

    Returns:
        The path of the file.

    Raises:
        TypeError: if `index` is no int64 tensor, or maps are no floating-point tensor.
        ValueError: if there is not one of each for a sample, or a sample (and class) is there twice.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from lightning_xai.explainers import Precomputed, save_maps
        >>> maps, index, target = torch.rand(2, 3, 4, 4), torch.tensor([5, 8]), torch.tensor([1, 0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = save_maps(folder, maps, index, target, part="first")
        ...     again = Precomputed(folder)(None, torch.rand(2, 3, 4, 4), target, index=index)
        >>> torch.equal(again, maps)
        True
    """
    if not isinstance(maps, Tensor) or not maps.is_floating_point() or maps.ndim < 2:
        raise TypeError(f"`maps` must be a floating-point tensor with a row a sample, got {maps!r:.100}.")
    check_index(index)
    if len(index) != len(maps) or (target is not None and target.shape != index.shape):
        raise ValueError(f"`index` and `target` must have one entry for each of the {len(maps)} maps.")
    classes = ["" if target is None else f"/{c}" for c in (index if target is None else target).tolist()]
    names = [f"{number}{c}" for number, c in zip(index.tolist(), classes, strict=True)]
    if len(set(names)) < len(names):
        raise ValueError(f"`index`: {next(n for n in names if names.count(n) > 1)!r} is there twice.")
    if part is not None and Path(part).name != part:
        raise ValueError(f"`part` must be the name of a file in the folder, without a path, got {part!r}.")
    file = Path(path) if part is None else Path(path) / f"{part}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    save_file({name: maps[row].detach().cpu().contiguous().clone() for row, name in enumerate(names)}, temporary)
    os.replace(temporary, file)
    return file


def refuse_precomputed(methods: Mapping[str, Explainer], why: str) -> None:
    """Refuse methods whose maps are there already, for what needs other ones.

    Args:
        methods: By name.
        why: What asks for other maps, and of what.
    """
    found = [name for name, method in methods.items() if any(isinstance(part, Precomputed) for part in chain(method))]
    if found:
        raise ValueError(
            f"`methods`: {', '.join(map(repr, found))} (Precomputed) has the maps of the samples and the network that "
            f"they were made of and no others, but {why}. Leave it out here, or give the method itself."
        )


class _Listing:
    """Where the map of each sample is."""

    def __init__(self, path: Path, method: str | None) -> None:
        self.path, self.method = path, method
        self.found: dict[Key, Place] = {}

    def places(self) -> dict[Key, Place]:
        if self.path.is_dir():
            self._folder()
        else:
            self._file(self.path)
        if not self.found:
            raise ValueError(f"`path`: {str(self.path)!r} has no maps: no file {' or '.join(_KINDS[:2])} in it.")
        return self.found

    def _folder(self) -> None:
        tensors, arrays = sorted(self.path.glob("*.safetensors")), sorted(self.path.rglob("*.npy"))
        if tensors and arrays:
            raise ValueError(f"`path`: {str(self.path)!r} has .safetensors and .npy files: leave one kind in it.")
        for path in tensors:
            self._file(path)
        for path in arrays:
            self._note(path.relative_to(self.path).with_suffix("").as_posix(), (path, None))

    def _file(self, path: Path) -> None:
        if path.suffix == ".safetensors":
            with _reading(path), safe_open(path, "pt") as file:
                names, metadata = list(file.keys()), file.metadata() or {}
            if "index" in metadata:
                self._explained(path, names, metadata)
                return
            for name in names:
                self._note(name, (path, name))
        elif path.suffix == ".npy":
            with _reading(path):
                length = len(np.load(path, mmap_mode="r"))
            self.found |= {(row, None): (path, row) for row in range(length)}
        else:
            with _reading(path), np.load(path) as arrays:
                names = list(arrays)
                rows = _rows(path, arrays, [name for name in names if name not in ("index", "target")])
            for name, place in rows or [(name, (path, name)) for name in names]:
                self._note(name, place)

    def _explained(self, path: Path, names: list[str], metadata: Mapping[str, str]) -> None:
        """A file of `lightning-xai explain`: a map for each method."""
        if self.method not in names and (self.method is not None or len(names) > 1):
            raise ValueError(f"`method` must be one of those in {path}, {', '.join(names)}; got {self.method!r}.")
        key = int(metadata["index"]), int(metadata["target"])
        self.found[key] = path, self.method or names[0]  # the same content under two names has the same maps

    def _note(self, name: str, place: Place) -> None:
        match = _SAMPLE.fullmatch(name)
        if match is None:
            raise ValueError(
                f"`path`: {name!r} in {str(self.path)!r} is not named after a sample: its index, such as 17, or index "
                "and class, 17/3. Rename it, or give a function from the index to the map."
            )
        key = int(match[1]), None if match[2] is None else int(match[2])
        if key in self.found:
            raise ValueError(f"`path`: {str(self.path)!r} has two maps of {name}: {self.found[key][0]} and {place[0]}.")
        self.found[key] = place


def _rows(path: Path, arrays: Any, names: list[str]) -> list[tuple[str, Place]]:
    """What the rows of the only array stand for; none where there is an array a sample."""
    if len(names) != 1 or _SAMPLE.fullmatch(names[0]):
        return []
    number = len(arrays[names[0]])
    index = arrays.get("index", np.arange(number))
    target = arrays.get("target")
    for name, given in {"index": index, "target": target}.items():
        if given is not None and (given.shape != (number,) or given.dtype.kind not in "iu"):
            raise ValueError(f"its {name!r} must be {number} whole numbers, got {given.dtype} {given.shape}")
    ends = [""] * number if target is None else [f"/{c}" for c in target.tolist()]
    return [(f"{i}{end}", (path, row)) for row, (i, end) in enumerate(zip(index.tolist(), ends, strict=True))]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise ValueError(f"`path`: {path} cannot be read: {error}.") from error


@contextmanager
def _opened(path: Path, shape: torch.Size) -> Iterator[Callable[[str | int | None], Any]]:
    """What gives a named tensor of a file, a row of its array, or all of it; `shape` is that of an input."""
    with _reading(path):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                yield file.get_tensor
        elif path.suffix == ".npy":
            array = np.load(path, mmap_mode="r")
            yield lambda row: array if row is None else _row(array, int(row), shape)
        else:
            with np.load(path) as arrays:
                whole = next((arrays[name] for name in arrays if name not in ("index", "target")), None)
                yield lambda name: arrays[name] if isinstance(name, str) else _row(whole, cast(int, name), shape)


def _row(array: Any, row: int, shape: torch.Size) -> Any:
    if array.shape == shape:
        raise ValueError(
            f"its shape {array.shape} is that of a single input, but the first axis must be that of the samples: give "
            f"one map as {(1, *shape)}, and maps that are summed over channels as {(len(array), 1, *shape[1:])}"
        )
    return array[row]


def _fitted(found: Any, inputs: Inputs, index: int) -> Tensor:
    """A map like an input, on the CPU; what cannot be one is refused."""
    maps, shape = _as_tensor(found, index).to("cpu", inputs.dtype), inputs.shape[1:]
    summed = inputs.ndim == 4 and maps.shape in (shape[1:], (1, *shape[1:]))
    if summed and maps.shape != shape:
        maps = _spread(maps.view(shape[1:]), shape[0])
    if maps.shape != shape:
        allowed = f", or summed over channels {tuple(shape[1:])}" if inputs.ndim == 4 else ""
        last = inputs.ndim == 4 and maps.shape == (*shape[1:], shape[0])
        raise ValueError(
            f"`path`: the map of sample {index} must have the shape of an input, {tuple(shape)}{allowed}; got "
            f"{tuple(maps.shape)}.{' Put the axis of the channels first.' if last else ''}"
        )
    if not maps.isfinite().all():
        raise ValueError(f"`path`: the map of sample {index} has NaN or infinite values as {inputs.dtype}.")
    return maps


def _as_tensor(found: Any, index: int) -> Tensor:
    if not isinstance(found, Tensor):
        array = np.asarray(found)
        if array.dtype.kind != "f" or array.itemsize > 8:
            raise TypeError(f"`path`: the map of sample {index} must be of floating-point numbers, got {array.dtype}.")
        found = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))  # a copy: files are read-only
    if not found.is_floating_point():
        raise TypeError(f"`path`: the map of sample {index} must be of floating-point numbers, got {found.dtype}.")
    return found.detach()


def _spread(maps: Tensor, channels: int) -> Tensor:
    """Over the channels, the last of which takes what is left of the sum of the others."""
    others = (maps / channels).expand(channels - 1, *maps.shape)
    return torch.cat([others, (maps - others.sum(0))[None]])


def _num_arguments(function: Callable[..., Any]) -> int:
    """How many it needs, in order; one where nobody can tell."""
    try:
        parameters = signature(function).parameters.values()
    except ValueError:
        return 1
    needed = [p for p in parameters if p.default is Parameter.empty]
    return len([p for p in needed if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)])
