"""Data modules: images with their labels, sample indices, masks and value bounds, in memory or as pictures on disk."""

from lightning_xai.data.base import ImageDataModule
from lightning_xai.data.cmnist import CMNISTDataModule
from lightning_xai.data.dial import DialDataModule
from lightning_xai.data.digits import DigitsDataModule
from lightning_xai.data.image_folder import ImageFolderDataModule, PictureDataModule
from lightning_xai.data.image_memory import FolderInMemoryDataModule
from lightning_xai.data.imagenet import ImageNetDataModule
from lightning_xai.data.mnist import FashionMNISTDataModule, MNISTDataModule
from lightning_xai.data.photographs import PhotographsDataModule
from lightning_xai.data.tetrominoes import TetrominoDataModule
from lightning_xai.data.training_folder import TrainingFolderDataModule
from lightning_xai.data.trojan import TrojanDataModule
from lightning_xai.data.truth import TruthDataModule, accuracy, dependence
from lightning_xai.data.two_digits import TwoDigitsDataModule
from lightning_xai.data.voc import VOCDataModule

__all__ = [
    "CMNISTDataModule",
    "DialDataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "FolderInMemoryDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "MNISTDataModule",
    "PhotographsDataModule",
    "PictureDataModule",
    "TetrominoDataModule",
    "TrainingFolderDataModule",
    "TrojanDataModule",
    "TruthDataModule",
    "TwoDigitsDataModule",
    "VOCDataModule",
    "accuracy",
    "dependence",
]
