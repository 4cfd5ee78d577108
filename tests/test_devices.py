"""What real accelerators need, as far as a CPU can show it; see also `test_simulated` and `test_precision`."""

import pytest
import torch
from torch import nn

import lightning_xai as lx
from lightning_xai.explainers import state

IMAGES = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Recurrent(nn.Module):
    """A convolution and an LSTM, of which each notes whether cuDNN is on while it runs."""

    def __init__(self):
        super().__init__()
        self.convolution, self.lstm, self.head = nn.Conv2d(1, 2, 1), nn.LSTM(16, 5), nn.Linear(5, 3)
        self.on, self.fails = {"convolution": [], "lstm": []}, False
        for name, notes in self.on.items():
            part = getattr(self, name)
            part.forward = self.noting(part.forward, notes)

    def noting(self, forward, notes):
        def noted(*arguments):
            notes.append(torch.backends.cudnn.enabled)
            if self.fails:
                raise ArithmeticError("no")
            return forward(*arguments)

        return noted

    def forward(self, x):
        rows = self.convolution(x).transpose(1, 2).flatten(2)
        return self.head(self.lstm(rows.transpose(0, 1))[0][-1])


@pytest.mark.parametrize("method", [lx.Gradient(), lx.noise_grad(num_draws=2)], ids=["gradient", "noise_grad"])
@pytest.mark.parametrize("before", [True, False])
def test_recurrent_layers_on_cuda_run_without_cudnn(monkeypatch, method, before):
    """It refuses their backward pass in evaluation mode."""
    model = Recurrent()
    plain = lx.explain(model, IMAGES, 0, method)
    assert set(model.on["lstm"]) == {True}, "on a CPU nothing changes"
    monkeypatch.setattr(state, "_on_cuda", lambda module: True)
    monkeypatch.setattr(torch.backends.cudnn, "enabled", before)
    for notes in model.on.values():
        notes.clear()
    torch.testing.assert_close(lx.explain(model, IMAGES, 0, method), plain)
    assert set(model.on["lstm"]) == {False}
    assert set(model.on["convolution"]) == {before}
    assert torch.backends.cudnn.enabled is before
    assert not model.lstm._forward_hooks
    assert not model.lstm._forward_pre_hooks
    model.fails = True
    with pytest.raises(ArithmeticError):
        lx.explain(model, IMAGES, 0, method)
    assert torch.backends.cudnn.enabled is before
