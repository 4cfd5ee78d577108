"""The photographs that scikit-image and scikit-learn carry: pictures for a pretrained network without a download."""

from importlib.resources import files
from pathlib import Path

from lightning_xai.data.image_folder import Picture, PictureDataModule

PHOTOGRAPHS = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/camera.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("skimage", "data/astronaut.png"),
)
"""Package and path in it: a cat, a cup of coffee, a motorcycle, a man with a camera, a rocket, a palace, a flower, an
astronaut."""


class PhotographsDataModule(PictureDataModule):
    """Eight embedded photographs, without labels; the arguments are those of `PictureDataModule`.

    Sources: scikit-image's chelsea (Stefan van der Walt), coffee (Rachel Michetti), camera (Lav Varshney), all CC0;
    rocket (SpaceX) and astronaut (NASA), in the public domain; stereo_motorcycle (Scharstein et al., Middlebury
    benchmark, GCPR 2014). scikit-learn's china (danielbuechele) and flower (vultilion), both CC BY 2.0.

    Example:
        >>> from lightning_xai.data import PhotographsDataModule
        >>> data = PhotographsDataModule(image_size=64, batch_size=2)
        >>> data.setup("test")
        >>> next(iter(data.test_dataloader()))["image"].shape
        torch.Size([2, 3, 64, 64])
    """

    def find_pictures(self, class_names: tuple[str, ...] | None) -> list[Picture]:
        return [Picture(Path(str(files(package) / name))) for package, name in PHOTOGRAPHS]
