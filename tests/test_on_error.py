"""An explanation that fails costs its scores, and neither other scores nor the training."""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback, RandomizationCallback
from lightning_xai.explainers import Explainer, Gradient, PerturbWeights
from lightning_xai.metrics import SampleMetric, Sparseness
from lightning_xai.results.store import read_scores

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated.*"),
]

IMAGES = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(7) % 3


@dataclass(frozen=True)
class OutOfMemory(Explainer):
    """Fails within a pass through the network, at samples whose pixels say so."""

    above: float = 0.0

    def attribute(self, model: Any, inputs: Any, target: Any, context: Any) -> Any:
        with torch.no_grad():
            model(inputs)
        if (inputs > self.above).any():
            raise torch.OutOfMemoryError("out of memory")
        return Gradient().attribute(model, inputs, target, context)


class Throwing(SampleMetric):
    higher_is_better = True

    def update(self, attributions: Tensor, *, index: Any = None) -> None:
        raise KeyError("nothing")


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        pass

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder: Any, *callbacks: Any, images: Tensor = IMAGES, labels: Tensor = LABELS) -> Module:
    torch.manual_seed(0)
    module, loader = Module(), DataLoader(TensorDataset(IMAGES, LABELS), 4, shuffle=True, drop_last=True)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )
    trainer.fit(module, loader, DataLoader(TensorDataset(images, labels), 4))
    return module


def test_what_fails_loses_its_own_scores_alone() -> None:
    model = Module().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    methods: dict[str, Any] = {"noisy": PerturbWeights(Gradient(), num_draws=2), "sg": lx.smooth_grad(num_draws=2)}
    whole = lx.evaluate(model, IMAGES, LABELS, methods, {"gini": Sparseness()})
    failing = PerturbWeights(OutOfMemory(above=float(IMAGES[:4].max())), num_draws=2)
    dark = IMAGES.clone()
    dark[4] = 2.0
    with pytest.warns(UserWarning, match="Explanations failed, and their scores are NaN: ") as told:
        found = lx.evaluate(
            model,
            dark,
            LABELS,
            {"noisy": failing, **{f"other {name}": method for name, method in methods.items()}},
            {"gini": Sparseness(), "bad": Throwing()},
            batch_size=4,
            keep_attributions=7,
            on_error="warn",
        )
    assert len(told) == 1
    message = str(told[0].message)
    assert "KeyError: 'nothing' (in the metric bad) (in the method noisy, samples 0, 1, 2, 3)" in message
    assert message.endswith("and 3 more")
    kept = torch.arange(7) < 4
    torch.testing.assert_close(found.scores["noisy"]["gini"][:4], whole.scores["noisy"]["gini"][:4])
    assert found.scores["noisy"]["gini"].isnan().equal(~kept)
    assert found.scores["noisy"]["gradients"].isnan().equal(~kept)
    assert found.attributions["noisy"].isnan().flatten(1).all(1).equal(~kept)
    for name in methods:
        torch.testing.assert_close(found.scores[f"other {name}"]["gini"][:4], whole.scores[name]["gini"][:4])
        assert found.scores[f"other {name}"]["gini"].isfinite().all()
        assert found.scores[f"other {name}"]["bad"].isnan().all()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_fails_in_a_stream_stays_missing_and_is_tried_again(tmp_path: Any) -> None:
    model, dark = Module().eval(), IMAGES.clone()
    dark[4] = 2.0
    method = {"oom": OutOfMemory(above=float(IMAGES.max()))}
    evaluate = partial(lx.evaluate_stream, model, DataLoader(TensorDataset(dark, LABELS), 4), tmp_path, 0, method)
    with pytest.warns(UserWarning, match="Explanations failed, .* the method oom, samples 4, 5, 6"):
        found = evaluate({"gini": Sparseness(), "bad": Throwing()}, batch_size=4, on_error="warn")
    assert (found.num_now, found.num_finished) == (4, 0), "no sample has all its scores"
    assert found.scores().pairs() == [("oom", "gini"), ("oom", "gradients")]
    with pytest.warns(UserWarning, match="Explanations failed, .* the method oom, samples 4") as told:
        found = evaluate({"gini": Sparseness()}, batch_size=1, on_error="warn")
    assert len(told) == 1
    assert (found.num_now, found.num_finished) == (2, 6)
    gini = found.scores().select(metric="gini").table.set_index("sample")["value"]
    whole = lx.evaluate(model, dark, 0, ["gradient"], {"gini": Sparseness()}).scores["gradient"]["gini"]
    assert sorted(gini.index) == [0, 1, 2, 3, 5, 6]
    torch.testing.assert_close(torch.tensor(gini.tolist()), whole[gini.index.tolist()])
    with pytest.raises(torch.OutOfMemoryError):
        evaluate({"gini": Sparseness()})


def test_by_default_it_fails_and_names_method_metric_and_samples() -> None:
    with pytest.raises(KeyError) as caught:
        lx.evaluate(Module(), IMAGES[:2], 0, ["gradient"], {"bad": Throwing()})
    assert caught.value.__notes__ == ["in the metric bad", "in the method gradient, samples 0, 1"]


def test_the_training_goes_on_as_without_the_callback(tmp_path: Any) -> None:
    """With a label of -100, a pixel that is NaN, a metric that throws and a method that takes too much memory."""
    images, labels = IMAGES.clone(), LABELS.clone()
    images[2, 0, 1, 1], labels[5] = torch.nan, -100
    callback = AttributionCallback(
        {"oom": OutOfMemory(), "grad": Gradient()},
        {"bad": Throwing(), "gini": Sparseness()},
        controls=False,
        on_error="warn",
    )
    plain = fit(tmp_path / "plain")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        observed = fit(tmp_path / "observed", callback, images=images, labels=labels)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, observed.state_dict()[name]), name
    messages = " ".join(str(warning.message) for warning in told)
    assert "leaves out 2 of 7 samples, 2, 5: ValueError: `inputs` must be finite" in messages
    assert "; ValueError: The labels must be in 0 .. 2, the outputs of the model, to be explained; 1 of 1" in messages
    assert "OutOfMemoryError: out of memory (in the method oom, samples 0, 1, 3, 4, 6)" in messages
    assert "KeyError: 'nothing' (in the metric bad) (in the method grad, samples 0, 1, 3, 4, 6)" in messages
    table = read_scores(tmp_path / "observed" / "xai" / "scores").table
    assert sorted(set(table["epoch"])) == [0, 1]
    assert sorted(set(table["sample"])) == list(range(7))
    defined = ~table["value"].isna()
    assert set(table[defined]["method"]) == {"grad"}
    assert set(table[defined]["metric"]) == {"gini", "gradients"}
    assert set(table[defined]["sample"]) == {0, 1, 3, 4, 6}


def test_a_network_that_fails_as_a_whole_costs_all_scores(tmp_path: Any) -> None:
    class Broken(Module):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training and not torch.is_grad_enabled() and len(x) == 7:
                raise RuntimeError("seven at once")
            return super().forward(x)

    callback = AttributionCallback(["gradient"], ["sparseness"], target="prediction", on_error="warn")
    trainer = Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path, callbacks=[callback])
    with pytest.warns(UserWarning, match="AttributionCallback has no scores: RuntimeError: seven at once"):
        trainer.validate(Broken(), DataLoader(TensorDataset(IMAGES), 4), verbose=False)
    assert callback.evaluation is not None
    assert callback.evaluation.index.tolist() == list(range(7))
    assert callback.evaluation.scores["gradient"]["sparseness"].isnan().all()
    assert trainer.callback_metrics["xai/gradient/sparseness"].isnan()


def test_of_the_randomization_callback_too(tmp_path: Any) -> None:
    def tested(*methods: str, **options: Any) -> Any:
        callback = RandomizationCallback(
            {"oom": OutOfMemory(), "grad": Gradient()} if methods else {"grad": Gradient()},
            ["cosine"],
            num_samples=3,
            **options,
        )
        trainer = Trainer(
            logger=False, accelerator="cpu", default_root_dir=tmp_path, callbacks=[callback], enable_progress_bar=False
        )
        torch.manual_seed(0)
        trainer.test(Module(), DataLoader(TensorDataset(IMAGES, LABELS), 4), verbose=False)
        return callback.scores

    with pytest.warns(UserWarning, match="has no similarities of oom: OutOfMemoryError: out of memory"):
        found = tested("oom", on_error="warn")
    alone = tested()
    assert found == pytest.approx(
        {**alone, "sanity/oom/cosine": torch.nan, "sanity/oom/cosine_floor": torch.nan}, nan_ok=True
    )
    with pytest.raises(torch.OutOfMemoryError):
        tested("oom")
