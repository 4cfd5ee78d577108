"""Random numbers that depend on *what* is drawn, never on the order or the company in which it is drawn.

Every sample has a 64-bit key made of the seed and the sample's index; `fold_in` derives from it one key for each
draw (and for a draw within a draw). A row of noise is then a function of its key alone: it is the same, bit for bit,
on every processor and device, for any batch size, chunk size and number of threads and processes. Keys live on the
CPU, so that nothing waits for a GPU.

The bits of a row are the SplitMix64 sequence that starts at its key (Steele, Lea, Flood: Fast splittable pseudorandom
number generators, 2014): 64-bit words, by integer operations alone. Each word makes four normal values, of 16 bits
each, or two uniform ones, of 32 bits each, the lowest bits first. So element i of a row, in the order of memory,
depends on the key and on i only, and a row of fewer values, of whatever shape, is the beginning of a longer one. Rows
with different keys differ from their first word on; two of n rows of W words overlap, one shifted against the other,
with probability about n² W / 2⁶⁴. Normal and uniform values of the same key are made of the same bits: where both are
needed, fold in different numbers.

A normal value is one of 65,536 quantiles of N(0, 1), all equally likely: those of (k + 1/2) / 65,536, times 1.00001 for
a variance of 1. Their distribution function is nowhere further than 1.1e-5 from the normal one, their mean exactly 0
(the negative of each is among them) and their variance 1 within 6e-12. None is beyond 4.325, where N(0, 1) has 1.5
of 100,000 values: the 4th, 6th and 8th moments are too small by 0.03, 0.2 and 0.8 %.

`Strata` spreads a fixed number of draws over the distribution without changing that of any of them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lightning_xai.functional.devices import is_apple, sent
from lightning_xai.shapes import Keys


def root_keys(seed: int, index: Int64[Tensor, " batch"]) -> Keys:
    """One key for each sample index."""
    return fold_in(torch.full(index.shape, _mix_int(seed + _GOLDEN), device="cpu"), index)


def fold_in(keys: Int64[Tensor, "..."], data: int | Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """New keys from old ones and a number (a draw, a path step, a layer); `keys` and `data` broadcast."""
    numbers = torch.as_tensor(data, dtype=torch.int64, device="cpu")
    mixed = _mix_words(_mix_words(_array(keys) + _WORD_STEP) ^ _mix_words(_array(numbers) * _WORD_STEP))
    return torch.from_numpy(mixed.view(np.int64).reshape(np.broadcast_shapes(keys.shape, numbers.shape)))


def fold_in_int(seed: int, data: int) -> int:
    """`fold_in` for one key that is a Python integer."""
    return _mix_int(_mix_int(_mix_int(seed + _GOLDEN) + _GOLDEN) ^ _mix_int(data * _GOLDEN))


def standard_normal(keys: Keys, shape: Sequence[int], device: torch.device | str = "cpu") -> Float[Tensor, "batch ..."]:
    """Independent N(0, 1) float32 values, (len(keys), *shape); element i of a row depends on its key and on i only.

    The bits are the same on all devices; Apple's GPUs get a copy of the CPU's. Do not write to them: they may be
    remembered (`remembering_noise`).
    """
    memory = _memory.get()
    if memory is None:
        return _draw(_NORMAL, keys, shape, device)
    what = (keys.numpy().tobytes(), tuple(shape), str(device))
    return memory.remembered(what, lambda: _draw(_NORMAL, keys, shape, device))


def uniform(keys: Keys, shape: Sequence[int], device: torch.device | str = "cpu") -> Float[Tensor, "batch ..."]:
    """Independent float32 values, (len(keys), *shape); element i of a row depends on its key and on i only.

    Each is a multiple of 2⁻²⁴ in [0, 1), all equally likely; the bits are the same on all devices.
    """
    return _draw(_UNIFORM, keys, shape, device)


class Strata:
    """Normal noise in strata: n draws of an element hit each of the n equally likely parts of N(0, 1) exactly once.

    McKay, Beckman and Conover's Latin hypercube (1979), with permutations that need neither a sort nor a state: draw k
    of element i falls into stratum s = (a k + b) mod n, where the step a, coprime to n, and the start b come from the
    SplitMix64 word that belongs to a key and i. Where in its stratum it falls is said by the 16 bits v that would make
    the independent value: it is quantile (65,536 s + v) // n, so that a single draw is distributed as independent ones
    are (b is uniform but for n / 2³²), and a single stratum is all of it. Elements are independent of one another. If n
    is prime, the strata of two draws are any two, equally likely; else there are pairs that never meet (draws k and
    k + n/2 are always half of the strata apart), which costs some per cent of what is gained.

    Args:
        keys: One a row; other ones than those of the draws.
        number: Of strata and of draws, at most 32,768.
        shape: Shape of a row.
    """

    most = 2**15
    """Strata: so that all of their arithmetic is of 31 bits."""

    def __init__(self, keys: Keys, number: int, shape: Sequence[int]) -> None:
        self.keys, self.number, self.shape = keys, number, tuple(shape)
        self._made: dict[torch.device, Tensor] = {}

    def normal(
        self, numbers: Int64[Tensor, " draws"], keys: Int64[Tensor, " rows"], device: torch.device | str = "cpu"
    ) -> Float[Tensor, "draws batch ..."]:
        """N(0, 1) float32 values of the draws with these numbers, 0 .. number - 1; not to be written to.

        Args:
            numbers: Numbers of draws.
            keys: Those of the independent values, (draws x batch), draw after draw.
        """
        memory, device = _memory.get(), torch.device(device)
        if memory is None:
            return self._normal(numbers, keys, device)
        what = (*(part.numpy().tobytes() for part in (self.keys, numbers, keys)), self.number, self.shape, str(device))
        return memory.remembered(what, lambda: self._normal(numbers, keys, device))

    def _normal(self, numbers: Tensor, keys: Tensor, device: torch.device) -> Tensor:
        length = math.prod(self.shape)
        if _on_cpu(device, len(keys) * length):
            cells = _rows(_CELLS, keys, self.shape).view(len(numbers), -1).numpy()
            strata = self._strata(torch.device("cpu")).view(-1).numpy()
            drawn = sent(torch.from_numpy(_stratified(cells, strata, numbers.numpy(), self.number)), device)
        else:
            own = _rows_on(device, _CELLS, keys, length).view(len(numbers), -1)
            drawn = _stratified_on(own, self._strata(device).view(-1), sent(numbers.int(), device), self.number)
        return drawn.reshape(len(numbers), len(self.keys), *self.shape)

    def _strata(self, device: torch.device) -> Tensor:
        """Of each element the step, in the upper 16 bits, and the start."""
        if device not in self._made:
            steps = np.arange(1, self.number + 1)
            units = steps[np.gcd(steps, self.number) == 1]
            values = _Values(1, partial(_fill_strata, units, self.number), partial(_make_strata, units, self.number))
            if device.type == "cpu":
                self._made[device] = _rows(values._replace(kind=np.int32), self.keys, self.shape)
            else:
                self._made[device] = _rows_on(device, values, self.keys, math.prod(self.shape))
        return self._made[device]


@contextmanager
def remembering_noise(most: int = 2**28) -> Iterator[None]:
    """Within it, normal noise that is asked for again is not drawn again.

    Methods and metrics of an evaluation see the same draws: the same noisy weights, and each method the same noise on
    the same samples for every input that a sensitivity metric explains.

    Args:
        most: Bytes that are remembered; what does not fit any more is drawn anew each time.
    """
    token = _memory.set(_Memory(most))
    try:
        yield
    finally:
        _memory.reset(token)


class _Memory:
    """Noise by what it depends on, first come first served: dropping the oldest would lose all in a long cycle."""

    def __init__(self, most: int) -> None:
        self.room = most
        self.known: dict[tuple, Tensor] = {}

    def remembered(self, what: tuple, make: Callable[[], Tensor]) -> Tensor:
        if what in self.known:
            return self.known[what]
        noise = make()
        if noise.nbytes <= self.room:
            self.room -= noise.nbytes
            self.known[what] = noise
        return noise


_memory: ContextVar[_Memory | None] = ContextVar("remembered noise", default=None)


class _Values(NamedTuple):
    """How words become values."""

    per_word: int
    fill: Callable[[np.ndarray, np.ndarray], object]  # an array, from words of the same number of rows
    make: Callable[[Tensor, int], Tensor]  # the first of a row, on any device
    kind: type[np.generic] = np.float32


def _draw(values: _Values, keys: Keys, shape: Sequence[int], device: torch.device | str) -> Tensor:
    device = torch.device(device)
    number = math.prod(shape)
    if _on_cpu(device, len(keys) * number):
        return sent(_rows(values, keys, shape), device)
    return _rows_on(device, values, keys, number).reshape(len(keys), *shape)


def _on_cpu(device: torch.device, number: int) -> bool:
    """Whether so many values for a device are made on the CPU: of few one copy instead of 16 launches."""
    return device.type == "cpu" or is_apple(device) or number <= _COPIED


def _rows(values: _Values, keys: Tensor, shape: Sequence[int]) -> Tensor:
    """On the CPU with NumPy, whose calls cost less than PyTorch's, in blocks of words that its cache holds."""
    states, drawn = keys.numpy().view(np.uint64)[:, None], np.empty((len(keys), *shape), values.kind)
    number, size = math.prod(shape), len(_STEPS)
    rows, words = drawn.reshape(len(drawn), number), -(-number // values.per_word)
    height, width = max(1, size // max(1, words)), size * values.per_word
    for top in range(0, len(rows), height):
        for left in range(0, words, size):
            block = states[top : top + height] + _STEPS[: words - left]
            if left:
                block += np.uint64(left * _GOLDEN % 2**64)
            start = left * values.per_word
            values.fill(_mix_words(block), rows[top : top + height, start : start + width])
    return torch.from_numpy(drawn)


def _rows_on(device: torch.device, values: _Values, keys: Tensor, number: int) -> Tensor:
    """On the device. It and its CPU have the lowest byte first, as all that PyTorch knows."""
    steps = torch.arange(1, -(-number // values.per_word) + 1, device=device)
    return values.make(_mix(torch.add(sent(keys, device)[:, None], steps, alpha=_GOLDEN)), number)


def _parts(words: np.ndarray, kind: np.dtype, number: int) -> np.ndarray:
    """Each row's first parts of words, lowest bits first, whatever the processor's order of bytes."""
    return words.astype(_LITTLE_WORD, copy=False).view(kind)[:, :number]


def _fill_normal(words: np.ndarray, out: np.ndarray) -> None:
    _quantiles().take(_parts(words, _LITTLE_QUARTER, out.shape[1]), None, out, "clip")


def _make_normal(words: Tensor, number: int) -> Tensor:
    quarters = words.view(torch.int16)[:, :number]
    return _quantiles_on(words.device)[quarters.int()]  # a negative index counts from the end, as the bits do


def _fill_uniform(words: np.ndarray, out: np.ndarray) -> None:
    np.copyto(out, _parts(words, _LITTLE_HALF, out.shape[1]) >> 8, casting="unsafe")
    out *= np.float32(2.0**-24)


def _make_uniform(words: Tensor, number: int) -> Tensor:
    halves = words.view(torch.int32)[:, :number]
    return ((halves >> 8) & (2**24 - 1)).to(torch.float32) * 2.0**-24


def _fill_cells(words: np.ndarray, out: np.ndarray) -> None:
    np.copyto(out, _parts(words, _LITTLE_QUARTER, out.shape[1]))


def _make_cells(words: Tensor, number: int) -> Tensor:
    return words.view(torch.int16)[:, :number].int() & (2**16 - 1)


def _fill_strata(units: np.ndarray, number: int, words: np.ndarray, out: np.ndarray) -> None:
    steps = units.astype(np.int32).take(((words >> 32) * np.uint64(len(units)) >> 32).astype(np.intp))
    starts = (words & np.uint64(2**32 - 1)) * np.uint64(number) >> 32
    np.bitwise_or(steps << 16, starts.astype(np.int32), out=out)


def _make_strata(units: np.ndarray, number: int, words: Tensor, _: int) -> Tensor:
    steps = sent(torch.from_numpy(units), words.device)[_shift(words, 32) * len(units) >> 32]
    return (steps << 16 | (words & (2**32 - 1)) * number >> 32).int()


def _stratified(cells: np.ndarray, strata: np.ndarray, numbers: np.ndarray, number: int) -> np.ndarray:
    """The values of (draw, element), in blocks that the cache holds."""
    drawn, size, strata = np.empty(cells.shape, np.float32), len(_STEPS), strata.view(np.uint32)
    factors, of, wide = numbers.astype(np.uint32)[:, None], np.uint32(number), np.uint32(2**16)
    height = max(1, size // max(1, len(strata)))
    for left in range(0, len(strata), size):
        part = slice(left, left + size)
        steps, starts = strata[part] >> np.uint32(16), strata[part] & np.uint32(2**16 - 1)
        for top in range(0, len(cells), height):
            block = steps * factors[top : top + height]
            block += starts
            block -= block // of * of  # NumPy takes a remainder ten times as slowly
            block *= wide
            block += cells[top : top + height, part]
            block //= of
            _quantiles().take(block, None, drawn[top : top + height, part], "clip")
    return drawn


def _stratified_on(cells: Tensor, strata: Tensor, numbers: Tensor, number: int) -> Tensor:
    block = ((strata >> 16) * numbers[:, None]).add_(strata & (2**16 - 1)).remainder_(number)
    return _quantiles_on(cells.device)[block.mul_(2**16).add_(cells).floor_divide_(number)]


_NORMAL = _Values(4, _fill_normal, _make_normal)
_UNIFORM = _Values(2, _fill_uniform, _make_uniform)
_CELLS = _Values(4, _fill_cells, _make_cells, np.uint16)
_LITTLE_WORD, _LITTLE_HALF, _LITTLE_QUARTER = np.dtype("<u8"), np.dtype("<u4"), np.dtype("<u2")
_COPIED = 2**14  # values: what CUDA copies without waiting for the device, 64 KiB


@cache
def _quantiles() -> np.ndarray:
    """Of N(0, 1), scaled to variance 1.

    The values in float64 are at least 4e-12 of themselves away from where their rounding to float32 changes: what
    processors' logarithms differ by, some 1e-16, does not show in the bits.
    """
    places = torch.arange(2**15, 2**16, dtype=torch.float64, device="cpu")
    upper = torch.special.ndtri((places + 0.5) / 2**16) * 1.000010141104
    return torch.cat([-upper.flip(0), upper]).float().numpy()


@cache
def _quantiles_on(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or it could never take part in what is differentiated
        return sent(torch.from_numpy(_quantiles()), device)


def _int64(value: int) -> int:
    """The low 64 bits of an integer, read as a signed number."""
    return (value + 2**63) % 2**64 - 2**63


_GOLDEN = _int64(0x9E3779B97F4A7C15)
_FACTORS = _int64(0xBF58476D1CE4E5B9), _int64(0x94D049BB133111EB)
_STEPS = np.arange(1, 2**14 + 1, dtype=np.uint64) * np.uint64(_GOLDEN % 2**64)  # of a block of words
_WORD_STEP = np.array(_GOLDEN % 2**64, np.uint64)
_WORD_SHIFTS = tuple(np.array(bits, np.uint64) for bits in (30, 27, 31))  # arrays: NumPy converts numbers in each call
_WORD_FACTORS = tuple(np.array(factor % 2**64, np.uint64) for factor in _FACTORS)


def _array(keys: Tensor) -> np.ndarray:
    """Words, for arithmetic on the CPU, where NumPy's calls take a fraction of the time of PyTorch's.

    A single number becomes an array too: NumPy would warn of a scalar that wraps, as it shall here.
    """
    return np.atleast_1d(keys.numpy()).view(np.uint64)


def _mix_words(x: np.ndarray) -> np.ndarray:
    """`_mix` of uint64 words, in place."""
    (first, second, third), (factor, other) = _WORD_SHIFTS, _WORD_FACTORS
    x ^= x >> first
    x *= factor
    x ^= x >> second
    x *= other
    x ^= x >> third
    return x


def _mix(x: Any) -> Any:
    """SplitMix64's finalizer of an int64 tensor or array: its arithmetic wraps, and a mask makes the shifts logical."""
    x = (x ^ _shift(x, 30)) * _FACTORS[0]
    x = (x ^ _shift(x, 27)) * _FACTORS[1]
    return x ^ _shift(x, 31)


def _mix_int(x: int) -> int:
    """`_mix` of one number."""
    x %= 2**64
    x = ((x ^ (x >> 30)) * _FACTORS[0]) % 2**64
    x = ((x ^ (x >> 27)) * _FACTORS[1]) % 2**64
    return _int64(x ^ (x >> 31))


def _shift(x: Any, bits: int) -> Any:
    return (x >> bits) & ((1 << (64 - bits)) - 1)
