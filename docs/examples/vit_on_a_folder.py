"""A ViT of timm on pictures/{train,val}/CLASS/*.png, its explanations scored: python vit_on_a_folder.py pictures"""

import sys

import timm
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import lightning_xai as lx
from lightning_xai.callbacks import AttributionCallback


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=2)  # pretrained=True

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch): ...

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


model = Classifier()
config = timm.data.resolve_data_config({"img_size": 64}, model=model.network)
train = ImageFolder(f"{sys.argv[1]}/train", timm.data.create_transform(**config, is_training=True))
val = ImageFolder(f"{sys.argv[1]}/val", timm.data.create_transform(**config))
callback = AttributionCallback(["smooth_grad", "adapt_grad", "grad_cam"], bounds=lx.bounds(config))
trainer = Trainer(max_epochs=1, callbacks=[callback])
trainer.fit(model, DataLoader(train, 16, shuffle=True), DataLoader(val, 16))
print(callback.scores().summary().pivot(index="method", columns="metric", values="mean"))
