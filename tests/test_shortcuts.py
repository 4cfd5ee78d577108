"""What decides a network, found and proven: networks whose truth is known in closed form."""

import torch
from torch import nn

import lightning_xai as lx

EVERY = ["color", "frequency", "background"]


class Corner(nn.Module):
    """Bright in the corner: class 1."""

    def forward(self, images):
        return 20 * torch.stack([0.5 - images[:, 0, 0, 0], images[:, 0, 0, 0] - 0.5], 1)


def pictures(number=256):
    images = torch.rand(number, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(number, 8, 8, dtype=torch.bool)
    masks[:, 3:6, 3:6] = True
    return images, masks


def test_what_was_found_is_proven_again_and_shown():
    images, masks = pictures()
    report = lx.find_shortcuts(Corner(), images, masks=masks, operators=EVERY)
    again = lx.find_shortcuts(Corner(), images, masks=masks, operators=EVERY, carried=report.findings)
    expected = {(label, name) for label in (0, 1) for name in ("place/0x0x2x2", "background")}
    assert {(found.label, found.name) for found in report.shortcuts} == expected
    assert {found.name for found in report.findings} <= {found.name for found in again.findings}
    for found in report.shortcuts:
        for example in lx.shortcuts.shown(Corner(), images, found, masks=masks):
            assert example.probability > 0.5 > example.probability_after
            assert example.region[0, 0]
