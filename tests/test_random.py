"""Noise is a function of (seed, sample, draw) alone, and is as random as it claims."""

import hashlib
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_xai.explainers import Context
from lightning_xai.functional import random
from lightning_xai.functional.random import (
    fold_in,
    fold_in_int,
    remembering_noise,
    root_keys,
    standard_normal,
    uniform,
)

SEEDS = (0, 1, -1, 12345, -(2**63), 2**63 - 1, 2**64 + 7, 10**40)
SHAPES = ((1,), (7,), (15,), (16,), (17,), (3, 5, 7), (1, 28, 28), ())
generators = pytest.mark.parametrize("draw", [standard_normal, uniform])


def same(actual, expected):
    assert_close(actual, expected, rtol=0, atol=0)


@generators
@pytest.mark.parametrize("shape", SHAPES)
def test_row_depends_on_its_key_alone(draw, shape):
    keys = root_keys(0, torch.tensor([4, 8, 15, 16, 23, 42]))
    rows = draw(keys, shape)
    assert rows.shape == (6, *shape)
    assert rows.dtype == torch.float32
    order = torch.tensor([5, 0, 3])
    same(draw(keys[order], shape), rows[order])
    for row, key in zip(rows, keys, strict=True):
        same(draw(key[None], shape)[0], row)


@generators
def test_global_random_state_is_neither_read_nor_written(draw):
    keys, state = root_keys(0, torch.arange(3)), torch.get_rng_state()
    before = draw(keys, (5,))
    same(torch.get_rng_state(), state)
    torch.rand(3)
    same(draw(keys, (5,)), before)
    torch.set_rng_state(state)


def test_keys_of_a_sample_do_not_depend_on_the_batch():
    index = torch.tensor([3, -7, 0, 2**62])
    same(root_keys(5, index)[2:3], root_keys(5, torch.tensor([0])))
    keys, draws = root_keys(5, index), torch.arange(4)
    same(fold_in(keys, draws[:, None])[:, 1], fold_in(keys[1], draws))
    same(fold_in(keys, 3), fold_in(keys, torch.tensor(3)))


@pytest.mark.parametrize("seed", SEEDS)
def test_any_integer_is_a_seed(seed):
    index = torch.arange(3)
    same(root_keys(seed, index), root_keys(seed, index))
    assert fold_in_int(seed, 2) == root_keys(seed, torch.tensor([2])).item()
    others = torch.cat([root_keys(other, index) for other in SEEDS if other != seed])
    assert not torch.isin(root_keys(seed, index), others).any()
    assert standard_normal(root_keys(seed, index), (5,)).isfinite().all()


def test_seed_zero_is_not_the_default_of_another_seed():
    assert (
        not standard_normal(root_keys(0, torch.arange(9)), (9,))
        .eq(standard_normal(root_keys(1, torch.arange(9)), (9,)))
        .any()
    )


def test_normal_values_pass_kolmogorov_smirnov():
    values = standard_normal(root_keys(0, torch.arange(400)), (501,))
    assert stats.kstest(values.flatten().double(), "norm").pvalue > 0.01
    # one value of each key: this also tests that nearby keys have unrelated generators
    assert (
        stats.kstest(standard_normal(root_keys(0, torch.arange(20_000)), (1,)).flatten().double(), "norm").pvalue > 0.01
    )


def test_uniform_values_pass_kolmogorov_smirnov():
    values = uniform(root_keys(0, torch.arange(400)), (501,))
    assert stats.kstest(values.flatten().double(), "uniform").pvalue > 0.01
    assert values.min() >= 0
    assert values.max() < 1


@pytest.mark.parametrize(
    "keys",
    [
        root_keys(0, torch.arange(40)),
        torch.stack([root_keys(seed, torch.tensor([0]))[0] for seed in range(-20, 20)]),
        fold_in(root_keys(0, torch.tensor([0])), torch.arange(40)),
        Context.create(torch.arange(8)).branch(torch.arange(5)).keys,
        torch.cat([Context.create(torch.arange(8)).model_draw(draw).keys for draw in range(5)]),
    ],
    ids=["samples", "seeds", "draws", "branches", "model draws"],
)
def test_rows_are_uncorrelated(keys):
    values = 4000
    rows = standard_normal(keys, (values,)).double()
    correlation = torch.corrcoef(rows).triu(1)
    pairs = correlation[correlation != 0] * values**0.5
    assert len(pairs) == 40 * 39 // 2
    assert stats.kstest(pairs, "norm").pvalue > 0.01


def test_fold_in_does_not_collide():
    samples, draws, inner = torch.arange(2000), torch.arange(100)[:, None], torch.arange(5)[:, None, None]
    roots = root_keys(0, samples)
    once = fold_in(roots, draws)
    twice = fold_in(once, inner)
    keys = torch.cat([roots, once.flatten(), twice.flatten()])
    assert len(keys.unique()) == len(keys)


def test_fold_in_is_not_symmetric():
    key = root_keys(0, torch.tensor([0]))
    assert fold_in(fold_in(key, 1), 2) != fold_in(fold_in(key, 2), 1)
    assert root_keys(1, torch.tensor([2])) != root_keys(2, torch.tensor([1]))


def test_context_orders_branches_copy_after_copy():
    context = Context.create(torch.tensor([10, 20, 30]), seed=3)
    branches = context.branch(torch.tensor([0, 5]))
    same(branches.keys, torch.cat([fold_in(context.keys, 0), fold_in(context.keys, 5)]))
    same(context.select(slice(1, 3)).keys, context.keys[1:])


def test_explainers_own_numbers_differ_from_the_noise_on_their_input():
    context = Context.create(torch.arange(5))
    assert not torch.isin(context.private_keys("a"), torch.cat([context.keys, context.private_keys("b")])).any()


# The bits: SplitMix64's, on every device


def split_mix_64(key, number):
    """The sequence as Steele, Lea and Flood define it."""
    words, state = [], key % 2**64
    for _ in range(number):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
        words.append(word ^ (word >> 31))
    return words


def pieces(key, number, bits):
    """The first numbers of so many bits of a key's sequence, lowest bits first."""
    words = split_mix_64(key, -(-number * bits // 64))
    return [(word >> start) % 2**bits for word in words for start in range(0, 64, bits)][:number]


def test_split_mix_64_is_the_published_one():
    assert split_mix_64(1234567, 2) == [6457827717110365317, 3203168211198807973]  # of the published C code


def test_values_are_what_the_words_say():
    keys = torch.tensor([1234567, 0, -1, -(2**63), 2**63 - 1, *root_keys(0, torch.arange(9)).tolist()])
    normal = special.ndtri((np.array([pieces(key, 11, 16) for key in keys.tolist()]) + 0.5) / 2**16)
    assert_close(standard_normal(keys, (11,)), torch.tensor(normal * 1.000010141104).float(), rtol=0, atol=0)
    same(
        uniform(keys, (11,)),
        torch.tensor([pieces(key, 11, 32) for key in keys.tolist()]).div(2**8, rounding_mode="floor") / 2**24,
    )


@generators
def test_values_are_frozen(draw):
    expected = {
        standard_normal: (
            [-0.3748445212841034, -0.9230177998542786, 0.8197405338287354, 0.7331767082214355, 0.31415897607803345],
            "40e6562283c350e0eaad48b78efccd8123c97549b9dc305083f98eaf77a5fa0f",
        ),
        uniform: (
            [0.17799913883209229, 0.7682768702507019, 0.2874087691307068, 0.5392617583274841, 0.19900023937225342],
            "d8d585aff73a9cf162a823d7f1aa0940b4db4faeb9ccae4fa1ec68f92a08ceec",
        ),
    }
    first, sha256 = expected[draw]
    same(draw(root_keys(0, torch.tensor([0])), (5,))[0], torch.tensor(first))
    assert digest(draw(root_keys(7, torch.arange(50)), (1001,))) == sha256


@generators
@pytest.mark.parametrize("words", [1, 8, 40, 1000])
def test_values_do_not_depend_on_the_blocks_that_they_are_made_in(draw, words, monkeypatch):
    keys = root_keys(0, torch.arange(7))
    expected = [draw(keys, shape) for shape in (*SHAPES, (333,))]
    monkeypatch.setattr(random, "_STEPS", random._STEPS[:words])
    for rows, shape in zip(expected, (*SHAPES, (333,)), strict=True):
        same(draw(keys, shape), rows)


@generators
def test_a_row_of_more_than_a_block_is_a_sequence(draw):
    number = 4 * len(random._STEPS) + 3
    (row,) = draw(torch.tensor([5]), (number,))
    later = torch.tensor([random._int64(5 + 0x9E3779B97F4A7C15 * 16_000)])  # so many words later
    start = 16_000 * (4 if draw is standard_normal else 2)
    same(row[start:], draw(later, (number - start,))[0])


@generators
def test_fewer_values_are_the_beginning_of_more(draw):
    keys = root_keys(0, torch.arange(5))
    long = draw(keys, (2, 3, 5, 7))
    for shape in ((210,), (209,), (3, 4, 5), (1,), (), (0,)):
        same(
            draw(keys, shape).flatten(1) if shape else draw(keys, shape)[:, None],
            long.flatten(1)[:, : math.prod(shape)],
        )


@generators
def test_no_rows_and_no_values(draw):
    assert draw(root_keys(0, torch.arange(0)), (3, 4)).shape == (0, 3, 4)
    assert draw(root_keys(0, torch.arange(3)), (2, 0)).shape == (3, 2, 0)


@generators
def test_keys_of_any_strides(draw):
    keys = root_keys(0, torch.arange(12))
    same(draw(keys[::3], (5,)), draw(keys, (5,))[::3])
    same(draw(keys[:1].expand(4), (5,)), draw(keys[:1], (5,)).repeat(4, 1))


@generators
def test_threads_do_not_share_anything_that_moves(draw):
    keys = [root_keys(seed, torch.arange(6)) for seed in range(8)]
    expected = [draw(some, (999,)) for some in keys]
    with ThreadPoolExecutor(4) as pool:
        for rows, row in zip(pool.map(lambda some: draw(some, (999,)), keys), expected, strict=True):
            same(rows, row)


KINDS = {standard_normal: random._NORMAL, uniform: random._UNIFORM}


@generators
@pytest.mark.parametrize("number", [0, 1, 2, 5, 784, 1001, 70_000])
def test_operations_of_other_devices_give_the_same_bits(draw, number):
    keys = torch.cat([root_keys(0, torch.arange(5)), torch.tensor([0, -1, -(2**63), 2**63 - 1])])
    same(random._rows_on(torch.device("cpu"), KINDS[draw], keys, number), draw(keys, (number,)))


@generators
@pytest.mark.parametrize("number", [random._COPIED // 4, random._COPIED])
def test_other_devices_get_what_they_ask_for(draw, number):
    values = draw(root_keys(0, torch.arange(4)), (2, number // 2), "meta")  # of few values a copy, of many their own
    assert values.shape == (4, 2, number // 2)
    assert values.dtype == torch.float32
    assert values.device.type == "meta"


class Launches(TorchDispatchMode):
    """Names what a device would be asked to run: all but views."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view:
            self.names.append(function.__name__)
        return function(*args, **(kwargs or {}))


@generators
def test_other_devices_run_few_operations(draw):
    keys, device = root_keys(0, torch.arange(4)), torch.device("meta")
    random._rows_on(device, KINDS[draw], keys, 10)  # the table, once
    with Launches() as launches:
        random._rows_on(device, KINDS[draw], keys, 10)
    assert len(launches.names) == {standard_normal: 16, uniform: 18}[draw], launches.names


@generators
def test_another_default_device_changes_nothing(draw):
    index = torch.arange(3)
    expected = draw(root_keys(0, index), (5,))
    random._quantiles.cache_clear()
    with torch.device("meta"):
        same(draw(root_keys(0, index), (5,)), expected)


def test_the_table_of_a_device_is_no_tensor_of_inference_mode():
    random._quantiles_on.cache_clear()
    with torch.inference_mode():
        table = random._quantiles_on(torch.device("cpu"))
    assert not table.is_inference()


@pytest.mark.parametrize("kind", [random._LITTLE_QUARTER, random._LITTLE_HALF])
def test_the_order_of_bytes_does_not_matter(kind):
    words = np.array([split_mix_64(3, 6), split_mix_64(4, 6)], np.uint64)
    number = 6 * 8 // kind.itemsize - 1
    expected = [pieces(3, number, 8 * kind.itemsize), pieces(4, number, 8 * kind.itemsize)]
    for order in "<>":
        assert random._parts(words.astype(words.dtype.newbyteorder(order)), kind, number).tolist() == expected


# The quantiles


def test_quantiles_are_those_of_the_normal_distribution_with_mean_0_and_variance_1():
    quantiles = random._quantiles()
    assert quantiles.dtype == np.float32
    assert quantiles.shape == (2**16,)
    assert (quantiles == -quantiles[::-1]).all()
    assert (np.diff(quantiles) > 0).all()
    exact = [Fraction(value) for value in quantiles.tolist()]
    assert sum(exact) == 0
    assert abs(sum(value**2 for value in exact) / 2**16 - 1) < 6e-12
    beyond, distribution = np.arange(2**16) / 2**16, stats.norm.cdf(quantiles.astype(np.float64))
    assert abs(distribution - beyond).max() < 1.1e-5
    assert abs(distribution - beyond - 2**-16).max() < 1.1e-5


def test_quantiles_are_frozen_and_hold_for_any_logarithm():
    quantiles = random._quantiles()
    assert digest(torch.from_numpy(quantiles)) == "7615c5b86c538f5979e51ed938f9e8417f23f4d6f0d57eda321f3c39f639e858"
    exact = special.ndtri((np.arange(2**16) + 0.5) / 2**16) * 1.000010141104
    for error in (-4e-12, 0, 4e-12):
        np.testing.assert_array_equal((exact * (1 + error)).astype(np.float32), quantiles)


@pytest.mark.parametrize(
    ("moment", "normal", "lacking"), [(1, 0, 0), (2, 1, 0), (3, 0, 0), (4, 3, 3e-4), (6, 15, 2e-3), (8, 105, 8e-3)]
)
def test_moments_of_the_quantiles(moment, normal, lacking):
    value = math.fsum(random._quantiles().astype(np.float64) ** moment) / 2**16
    assert normal * (1 - lacking) - 1e-11 < value < normal + 1e-11


# How random it is: each figure within four of its own standard errors, or with p > 1e-4 (all is deterministic)


ORDERS = {
    "a row's elements": lambda draw: draw(root_keys(1, torch.arange(1)), (2**18,)),
    "samples": lambda draw: draw(root_keys(0, torch.arange(2**16)), (4,)),
    "draws": lambda draw: draw(fold_in(root_keys(0, torch.arange(1)), torch.arange(2**16)), (4,)),
    "seeds": lambda draw: draw(torch.tensor([fold_in_int(seed, 0) for seed in range(2**14)]), (16,)),
    "draws of samples": lambda draw: draw(
        fold_in(root_keys(0, torch.arange(64)), torch.arange(1024)[:, None]).flatten(), (4,)
    ),
    "keys in a row": lambda draw: draw(torch.arange(2**16), (4,)),
    "keys of one bit": lambda draw: draw(1 << torch.arange(64), (2**12,)),
}
orders = pytest.mark.parametrize("order", ORDERS)


@orders
def test_moments_and_tails_are_those_of_the_quantiles_all_equally_likely(order):
    counts = counted(ORDERS[order](standard_normal))
    moments_and_tails(counts)
    assert p_value(counts.reshape(2**12, -1).sum(1)) > 1e-4  # neighbors
    assert p_value(counts.reshape(-1, 2**12).sum(0)) > 1e-4  # the lower bits


@pytest.mark.slow
def test_each_quantile_comes_as_often_as_the_others():
    counts = sum(counted(standard_normal(root_keys(seed, torch.arange(2**12)), (2**11,))) for seed in range(4))
    moments_and_tails(counts)
    assert p_value(counts) > 1e-4


def counted(values):
    """How often each quantile is among the values."""
    return np.bincount(np.searchsorted(random._quantiles(), values.numpy().ravel()), minlength=2**16)


def moments_and_tails(counts):
    quantiles = random._quantiles().astype(np.float64)
    for moment in range(1, 9):
        powers = quantiles**moment
        assert abs(counts @ powers / counts.sum() - powers.mean()) < 4 * powers.std() / counts.sum() ** 0.5
    for tail in (1, 2, 3, 4):
        beyond = abs(quantiles) > tail
        assert stats.binomtest(int(counts @ beyond), int(counts.sum()), beyond.mean()).pvalue > 1e-4


@orders
def test_neighbors_are_independent(order):
    """Correlations of values, squares and signs with those next, up to 200 places on, and of the next rows."""
    rows = ORDERS[order](standard_normal).double()
    flat = rows.flatten()
    lags = [1, 2, 3, 4, 5, 8, 12, 16, 28, 196, rows.shape[1] // 2, *(rows.shape[1] * row for row in (1, 2, 3, 64))]
    for lag in lags:
        if 0 < lag < len(flat) // 4:
            x, y = flat[:-lag], flat[lag:]
            for f in (lambda z: z, torch.square, torch.sign):
                pair = torch.stack([f(x), f(y)])
                assert abs(torch.corrcoef(pair)[0, 1]) < 4.5 / len(x) ** 0.5, lag  # of 250 such figures


@orders
def test_classical_tests_of_the_bits(order):
    """Frequency of each bit and of each pair of bits, runs, pairs of bytes, permutations, collisions."""
    drawn = (ORDERS[order](uniform).double() * 2**24).long().flatten().numpy()
    bits = (drawn[:, None] >> np.arange(24)) & 1
    signs = 2.0 * bits - 1
    together = np.sqrt(len(drawn)) * np.concatenate(
        [signs.mean(0), (signs.T @ signs / len(drawn))[np.triu_indices(24, 1)]]
    )
    assert stats.kstest(together, "norm").pvalue > 1e-4
    stream = signs.ravel()
    assert abs((stream[1:] * stream[:-1]).sum()) < 4 * len(stream) ** 0.5
    high = drawn >> 16
    assert p_value(np.bincount(high[:-1:2] * 256 + high[1::2], minlength=2**16).reshape(2**12, -1).sum(1)) > 1e-4
    fives = drawn[: len(drawn) // 5 * 5].reshape(-1, 5)
    distinct = fives[(np.diff(np.sort(fives), axis=1) > 0).all(1)]
    assert p_value(np.bincount(distinct.argsort(1) @ 5 ** np.arange(5), minlength=1)[PERMUTATIONS]) > 1e-4
    pairs = len(drawn) * (len(drawn) - 1) / 2 / 2**24
    collisions = len(drawn) - len(np.unique(drawn))
    assert stats.poisson.cdf(collisions, pairs) > 1e-4
    assert stats.poisson.sf(collisions, pairs) > 1e-4


PERMUTATIONS = np.array(list(itertools.permutations(range(5)))) @ 5 ** np.arange(5)


def p_value(counts):
    return stats.chisquare(counts).pvalue


def digest(values):
    return hashlib.sha256(values.numpy().astype("<f4").tobytes()).hexdigest()


def test_uniform_values_reach_both_ends_of_their_range_and_nothing_beyond():
    out = np.empty((1, 4), np.float32)
    random._fill_uniform(np.array([[0, 2**64 - 1]], np.uint64), out)
    assert out.tolist() == [[0, 0, 1 - 2**-24, 1 - 2**-24]]
    values = uniform(root_keys(0, torch.arange(100)), (1000,))
    same(values * 2**24, (values * 2**24).round())


def test_no_two_draws_of_a_large_evaluation_share_their_key():
    keys = fold_in(root_keys(0, torch.arange(50_000)), torch.arange(50)[:, None]).flatten()
    assert len(keys.unique()) == 50_000 * 50


def test_few_keys_and_many_are_mixed_alike():
    index = torch.tensor([3, -7, 0, 2**62, -(2**63), *range(100)])
    many = root_keys(5, index)
    for place in (0, 3, 4, 50):
        same(root_keys(5, index[place : place + 3]), many[place : place + 3])
        same(fold_in(many[place : place + 3], 9), fold_in(many, 9)[place : place + 3])


# Remembered noise


def test_noise_is_drawn_once_while_it_is_remembered():
    keys = root_keys(0, torch.arange(4))
    before = standard_normal(keys, (100,))
    with remembering_noise():
        first = standard_normal(keys, (100,))
        assert standard_normal(keys.clone(), (100,)) is first
        same(first, before)
        assert standard_normal(keys[:2], (100,)) is not first
        same(standard_normal(keys[:2], (100,)), before[:2])
        same(standard_normal(keys, (50,)), torch.stack([standard_normal(key[None], (50,))[0] for key in keys]))
    assert standard_normal(keys, (100,)) is not first


def test_no_more_noise_is_remembered_than_asked_for():
    keys = root_keys(0, torch.arange(3))
    with remembering_noise(most=1000):  # two of the three
        drawn = [standard_normal(key[None], (100,)) for key in keys]
        again = [standard_normal(key[None], (100,)) for key in keys]
    assert [one is two for one, two in zip(drawn, again, strict=True)] == [True, True, False]
    same(torch.stack(drawn), torch.stack(again))
