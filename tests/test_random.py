"""Noise is a function of (seed, sample, draw) alone, and is as random as it claims."""

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

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


# The generator of devices that are not the CPU (it runs on any)


def split_mix_64(key, number):
    """The sequence as Steele, Lea and Flood define it."""
    words, state = [], key % 2**64
    for _ in range(number):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
        words.append(word ^ (word >> 31))
    return words


def test_words_are_those_of_split_mix_64():
    assert split_mix_64(1234567, 2) == [6457827717110365317, 3203168211198807973]  # of the published C code
    for key in (1234567, 0, -1, -(2**63), 2**63 - 1):
        words = random._bits(torch.tensor([key]), 9, "cpu")[0].tolist()
        assert [word % 2**64 for word in words] == split_mix_64(key, 9)


def test_counted_normal_values_are_standard_normal_and_independent():
    keys = root_keys(3, torch.arange(400))
    values = random._box_muller(keys, 501, "cpu")
    assert values.shape == (400, 501)
    assert values.dtype == torch.float32
    same(random._box_muller(keys[7:9], 501, "cpu"), values[7:9])
    assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 0.01
    assert values.abs().max() < 6
    halves = values[:, :250], values[:, 251:501]  # cosine and sine of the same word
    for x, y in (halves, (values[:, :-1], values[:, 1:]), (values[:-1], values[1:])):
        for f in (torch.Tensor.abs, torch.Tensor.double):
            pairs = torch.stack([f(x).flatten(), f(y).flatten()]).double()
            assert abs(torch.corrcoef(pairs)[0, 1]) < 4 / pairs.shape[1] ** 0.5


def test_counted_fractions_are_uniform():
    values = random._fraction(random._bits(root_keys(0, torch.arange(100)), 1000, "cpu"))
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values.flatten().numpy(), "uniform").pvalue > 0.01


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
