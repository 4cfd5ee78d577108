"""Maps that were made elsewhere score as those made on the spot, and whatever does not fit is refused by name."""

import copy
import pickle

import numpy as np
import pytest
import quantus
import torch
from safetensors.torch import save_file
from torch import nn

import lightning_xai as lx
from lightning_xai import metrics
from lightning_xai.explainers import Context, Precomputed, save_maps
from lightning_xai.functional.complexity import gini
from lightning_xai.functional.maps import pixel_map
from lightning_xai.metrics.quantus import QuantusMetric
from lightning_xai.sanity.checks import Subject
from lightning_xai.sanity.invariance import invariance_scores, shifted_twin
from lightning_xai.sanity.refined import efficient_mprt, random_logit
from lightning_xai.sanity.similarity import SIMILARITIES

INDEX = torch.tensor([1007, 3, 250])
TARGET = torch.tensor([2, 0, 1])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def maps():
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def read(path, images, target=TARGET, index=INDEX, **options):
    return Precomputed(path, **options)(None, images, target, index=index)


def write_tensors(folder, maps):
    save_file({f"{i}": m.clone() for i, m in zip(INDEX.tolist(), maps, strict=True)}, folder / "all.safetensors")
    return folder / "all.safetensors"


def write_parts(folder, maps):
    for row in range(3):
        save_maps(folder, maps[row : row + 1], INDEX[row : row + 1], TARGET[row : row + 1], part=f"part-{row}")
    return folder


def write_arrays(folder, maps):
    for number, found in zip(INDEX.tolist(), maps.numpy(), strict=True):
        np.save(folder / f"{number:08d}.npy", found)
    return folder


def write_arrays_of_classes(folder, maps):
    for number, target, found in zip(INDEX.tolist(), TARGET.tolist(), maps.numpy(), strict=True):
        (folder / f"{number}").mkdir()
        np.save(folder / f"{number}" / f"{target}.npy", found)
        np.save(folder / f"{number}" / "7.npy", 0 * found)
    return folder


def write_rows(folder, maps):
    whole = np.full((1008, *maps.shape[1:]), np.nan, dtype=np.float32)
    whole[INDEX] = maps
    np.save(folder / "all.npy", whole)
    return folder / "all.npy"


def write_named_archive(folder, maps):
    np.savez(folder / "all.npz", **{f"{i}": m for i, m in zip(INDEX.tolist(), maps.numpy(), strict=True)})
    return folder / "all.npz"


def write_archive(folder, maps):
    np.savez(folder / "all.npz", maps=maps.numpy(), index=INDEX.numpy(), target=TARGET.numpy())
    return folder / "all.npz"


def write_function(folder, maps):
    return dict(zip(INDEX.tolist(), maps, strict=True)).__getitem__


def write_function_of_classes(folder, maps):
    known = {(i, c): m for i, c, m in zip(INDEX.tolist(), TARGET.tolist(), maps.tolist(), strict=True)}
    return lambda index, target: np.array(known[index, target], dtype=np.float32)


FORMS = (
    *(write_tensors, write_parts, write_arrays, write_arrays_of_classes, write_rows),
    *(write_named_archive, write_archive, write_function, write_function_of_classes),
)


@pytest.mark.parametrize("write", FORMS)
def test_maps_come_back_bit_for_bit_in_any_order_by_an_index_with_gaps(write, tmp_path, images, maps):
    method = Precomputed(write(tmp_path, maps))
    assert torch.equal(method(None, images, TARGET, index=INDEX), maps)
    order = torch.tensor([2, 0])
    assert torch.equal(method(None, images[order], TARGET[order], index=INDEX[order]), maps[order])


@pytest.mark.parametrize("write", FORMS)
def test_a_missing_sample_is_refused_by_name(write, tmp_path, images, maps):
    with pytest.raises(ValueError, match=r"`path`.* sample 4242"):
        read(write(tmp_path, maps), images, index=torch.tensor([1007, 3, 4242]))


@pytest.mark.parametrize("write", [write_parts, write_arrays_of_classes, write_archive])
def test_a_map_of_another_class_is_refused(write, tmp_path, images, maps):
    with pytest.raises(ValueError, match=r"has maps of sample 3 for class 0(, 7)?, but class 1 is explained"):
        read(write(tmp_path, maps), images, torch.tensor([2, 1, 1]))


def test_maps_of_a_class_ask_the_network_for_the_class_where_no_target_is_given(tmp_path, images, maps, model):
    predicted = model(images).argmax(1)
    save_maps(tmp_path / "all.safetensors", maps, INDEX, predicted)
    method = Precomputed(tmp_path / "all.safetensors")
    assert torch.equal(method(model, images, index=INDEX), maps)
    with pytest.raises(TypeError, match=r"`model` must be .*, got None"):
        method(None, images, index=INDEX)


def test_metrics_on_kept_smooth_grad_maps_are_those_on_the_spot_and_no_gradient_is_taken(tmp_path, images, model):
    method, masks = lx.smooth_grad(num_draws=4), torch.rand(3, 8, 8) > 0.5
    scored = {
        "sparseness": metrics.Sparseness(),
        "auroc": metrics.LocalizationAUROC(),
        "correlation": metrics.FaithfulnessCorrelation(num_subsets=5, baseline=0.0, subset_size=9),
        "infidelity": metrics.Infidelity(num_draws=5, square_size=3, baseline=0.0),
        "noise": metrics.InherentNoise(),
        "quantus": QuantusMetric(quantus.Complexity(disable_warnings=True)),
    }
    options = {"bounds": (0.0, 1.0), "index": INDEX, "seed": 5}
    made = lx.explain(model, images, TARGET, method, **options)
    save_maps(tmp_path, made, INDEX, TARGET, part="first")
    methods = {"spot": method, "kept": Precomputed(tmp_path)}
    scores = lx.evaluate(model, images, TARGET, methods, scored, masks, batch_size=2, **options).scores
    for name in ("sparseness", "auroc", "correlation", "infidelity", "quantus"):
        torch.testing.assert_close(scores["kept"][name], scores["spot"][name], rtol=0, atol=0)
    assert scores["kept"]["gradients"].tolist() == [0, 0, 0]
    assert scores["kept"]["noise"].isnan().all()  # nobody knows how they were made


def test_no_network_is_needed_where_nobody_looks_at_one(images, maps):
    methods = {"theirs": Precomputed(dict(enumerate(maps)).__getitem__), "random": "random_attribution"}
    found = lx.evaluate(None, images, 0, methods, ["sparseness"])
    torch.testing.assert_close(found.scores["theirs"]["sparseness"], gini(maps))
    with pytest.raises(TypeError, match=r"`model` must be .*, got None. It may be None only where `target` is given"):
        lx.evaluate(None, images, 0, methods, {"flip": metrics.PixelFlipping(baseline=0.0)})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_maps_summed_over_channels_have_themselves_as_channel_sum(channels, dtype, images):
    summed = torch.randn(8, 8).to(dtype)
    for shape in ((8, 8), (1, 8, 8)):
        made = Precomputed(lambda index, shape=shape: summed.view(shape))(None, images[:1, :channels])
        assert made.shape == (1, channels, 8, 8)
        assert made.dtype == torch.float32
        assert torch.equal(pixel_map(made, absolute=False)[0], summed.float())
        torch.testing.assert_close(made[0, 0], summed.float() / channels)


def test_half_precision_big_endian_and_fortran_order_are_read_exactly(tmp_path, images, maps):
    half = maps.half().numpy()
    np.save(tmp_path / "0.npy", half[0].astype(">f2"))
    np.save(tmp_path / "1.npy", np.asfortranarray(half[1]))
    np.save(tmp_path / "2.npy", half[2].astype("<f8"))
    assert torch.equal(read(tmp_path, images, index=torch.arange(3)), maps.half().float())


def test_a_single_map_is_not_taken_for_one_of_each_sample(tmp_path, images, maps):
    np.save(tmp_path / "map.npy", maps[0].numpy())
    with pytest.raises(ValueError, match=r"\(3, 8, 8\) is that of a single input.*\(1, 3, 8, 8\).*\(3, 1, 8, 8\)"):
        read(tmp_path / "map.npy", images, index=torch.arange(3))
    np.save(tmp_path / "rows.npy", maps[:, :1].numpy())
    assert torch.equal(pixel_map(read(tmp_path / "rows.npy", images, index=torch.arange(3)), False), maps[:, 0])


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        (torch.zeros(3, 8, 7), ValueError, r"sample 1007 must have the shape of an input, \(3, 8, 8\), or summed"),
        (torch.zeros(8, 8, 3), ValueError, "Put the axis of the channels first"),
        (torch.zeros(2, 8, 8), ValueError, r"got \(2, 8, 8\)"),
        (torch.full((3, 8, 8), torch.nan), ValueError, "sample 1007 has NaN or infinite values"),
        (np.full((3, 8, 8), 1e300), ValueError, "NaN or infinite values as torch.float32"),
        (np.zeros((3, 8, 8), dtype=np.uint8), TypeError, "sample 1007 must be of floating-point numbers, got uint8"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), TypeError, "floating-point numbers, got torch.int32"),
        (np.zeros((3, 8, 8), dtype=complex), TypeError, "got complex128"),
        ("a string", TypeError, "floating-point"),
        (None, ValueError, "no map of sample 1007: it gave None"),
    ],
)
def test_what_is_no_map_is_refused_by_name(found, error, words, images):
    with pytest.raises(error, match=words):
        read(lambda index: found, images)


def test_places_that_are_none_are_refused(tmp_path, images, maps):
    with pytest.raises(ValueError, match="no file or folder"):
        Precomputed(tmp_path / "nothing")
    with pytest.raises(TypeError):
        Precomputed(3)
    with pytest.raises(TypeError, match="a function of the index, or of index and class"):
        Precomputed(lambda: None)
    with pytest.raises(ValueError, match="has no maps"):
        read(tmp_path, images)
    np.save(tmp_path / "val_17.npy", maps[0].numpy())
    with pytest.raises(ValueError, match=r"'val_17' in .* is not named after a sample"):
        read(tmp_path, images)
    (tmp_path / "val_17.npy").rename(tmp_path / "17.npy")
    np.save(tmp_path / "017.npy", maps[0].numpy())
    with pytest.raises(ValueError, match="two maps of 17"):
        read(tmp_path, images)
    (tmp_path / "017.npy").unlink()
    np.save(tmp_path / "17.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path, images, index=torch.tensor([17, 17, 17]))
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        read(tmp_path / "broken.safetensors", images)
    with pytest.raises(ValueError, match="leave one kind"):
        read(tmp_path, images)
    (tmp_path / "maps.txt").write_text("")
    with pytest.raises(ValueError, match="must be a folder, or a file"):
        Precomputed(tmp_path / "maps.txt")
    with pytest.raises(ValueError, match="'3' is there twice"):
        save_maps(tmp_path / "a.safetensors", maps[:2], torch.tensor([3, 3]))


@pytest.mark.parametrize(
    "wrapped", [lx.Smooth, lx.PerturbWeights, lambda inner: lx.IntegratedGradients(inner, baseline=0.0)]
)
def test_what_changes_inputs_or_weights_cannot_wrap_them(wrapped, images, maps, model):
    with pytest.raises(ValueError, match="Precomputed has the maps of the samples themselves"):
        wrapped(Precomputed(dict(enumerate(maps)).__getitem__))(model, images, 0)


def test_what_leaves_the_input_can_wrap_them(images, maps, model):
    kept = Precomputed(dict(enumerate(maps)).__getitem__)
    assert torch.equal(lx.Saliency(kept)(model, images, 0), maps.abs())
    assert torch.equal(lx.InputXGradient(kept)(model, images, 0), images * maps)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.MaxSensitivity(num_draws=1),
        metrics.LocalLipschitz(num_draws=1),
        QuantusMetric(quantus.AvgSensitivity(nr_samples=1, disable_warnings=True)),
    ],
)
def test_metrics_that_explain_again_refuse_them_before_work(metric, images, maps):
    asked = []
    method = lx.Saliency(Precomputed(lambda index: asked.append(index)))
    with pytest.raises(ValueError, match=r"`methods`: 'theirs' \(Precomputed\).*'again' .* explains again"):
        lx.evaluate(nn.Flatten(), images, 0, {"theirs": method}, {"again": metric})
    own, given = copy.deepcopy(metric), {"model": nn.Flatten(), "context": Context.create(torch.arange(3))}
    with pytest.raises(ValueError, match=r"\(Precomputed\)"):
        own.update(maps, inputs=images, target=torch.zeros(3, dtype=torch.int64), explainer=method, **given)
    assert not asked


def test_sanity_checks_refuse_them(images, maps, model):
    method = Precomputed(dict(enumerate(maps)).__getitem__)
    with pytest.raises(ValueError, match=r"'theirs' \(Precomputed\).*sanity checks"):
        Subject(model, images, TARGET, INDEX, {"theirs": method}, SIMILARITIES)
    twin = shifted_twin(model, 1.0, images)
    for check in (
        lambda: efficient_mprt(model, images, 0, method),
        lambda: random_logit(model, images, 0, method),
        lambda: invariance_scores(model, twin, 1.0, images, 0, method),
    ):
        with pytest.raises(ValueError, match=r"\(Precomputed\)"):
            check()


def test_a_description_tells_other_maps_in_the_same_place_apart(tmp_path, images, maps):
    file = save_maps(tmp_path / "all.safetensors", maps, INDEX)
    first, again = Precomputed(file), Precomputed(str(file))
    assert repr(first) == repr(again) == repr(pickle.loads(pickle.dumps(first)))
    save_maps(file, maps.flip(0), INDEX)
    assert repr(Precomputed(file)) != repr(first)
    assert torch.equal(copy.deepcopy(first)(None, images, index=INDEX), maps.flip(0))
    assert repr(Precomputed(write_arrays)).endswith("write_arrays)")
