"""Data modules: images in memory, with their labels, sample indices, masks and value bounds."""

from lightning_xai.data.base import ImageDataModule
from lightning_xai.data.cmnist import CMNISTDataModule
from lightning_xai.data.digits import DigitsDataModule
from lightning_xai.data.mnist import FashionMNISTDataModule, MNISTDataModule

__all__ = ["CMNISTDataModule", "DigitsDataModule", "FashionMNISTDataModule", "ImageDataModule", "MNISTDataModule"]
