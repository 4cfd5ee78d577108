"""Trained on a stream without length, with two validation sets, each with its own scores."""

import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset

from lightning_xai.callbacks import AttributionCallback


class Stripes(IterableDataset):  # upright or lying, in noise, for ever
    def __init__(self, noise):
        self.noise = noise

    def __iter__(self):
        while True:
            stripes, label = (torch.arange(16) % 4 < 2).float().expand(1, 16, 16), int(torch.rand(()) < 0.5)
            yield torch.lerp(stripes if label else stripes.mT, torch.rand(1, 16, 16), self.noise), label


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 5), torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten())

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0): ...

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


callback = AttributionCallback(bounds=(0.0, 1.0))
trainer = Trainer(max_steps=100, val_check_interval=50, limit_val_batches=4, callbacks=[callback])
train, clean, noisy = (DataLoader(Stripes(noise), 16) for noise in (0.3, 0.1, 0.6))
trainer.fit(Classifier(), train, {"clean": clean, "noisy": noisy})
