"""A 3-D network of MONAI with one logit, for "lesion or not", on scans with masks; its panel shows slices."""

import torch
from monai.networks.nets import DenseNet
from pytorch_lightning import LightningModule, Trainer
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from lightning_xai.callbacks import AttributionCallback

axis = torch.linspace(-1, 1, 16)  # noise, and in every second scan a bright ball
ball = (torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")) - 0.3).norm(dim=0) < 0.4
labels = torch.arange(16) % 2
scans = torch.rand(16, 1, 16, 16, 16) * (0.6 + 0.4 * ball * labels.view(-1, 1, 1, 1, 1))
rows = [{"image": scan, "label": label, "mask": ball} for scan, label in zip(scans, labels, strict=True)]


class Detector(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = DenseNet(3, 1, 1, init_features=8, growth_rate=4, block_config=(2, 2))

    def forward(self, scans):
        return self.network(scans)  # one logit: label 1 explains it, label 0 its negative

    def training_step(self, batch):
        return binary_cross_entropy_with_logits(self(batch["image"])[:, 0], batch["label"].float())

    def validation_step(self, batch):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


callback = AttributionCallback(["gradient", "noise_grad", "grad_cam"], num_samples=8, bounds=(0.0, 1.0))
trainer = Trainer(max_epochs=2, callbacks=[callback])
trainer.fit(Detector(), DataLoader(rows, 4, shuffle=True), DataLoader(rows, 4))
print(callback.scores().summary().pivot(index="method", columns="metric", values="mean"))
print(*(callback.folder / "panels").glob("*.png"))
