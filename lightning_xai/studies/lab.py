"""Where the experiments get their networks and data from."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial, reduce
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning import LightningDataModule

from lightning_xai import data as data_modules
from lightning_xai.callbacks.samples import Samples, read_rows, spread, unpack
from lightning_xai.carried import carried_file, carried_folder
from lightning_xai.experiments.noise_level import find_noise_level
from lightning_xai.explainers.precision import Precision, in_precision
from lightning_xai.modules.manifest import shipped_weights
from lightning_xai.results.noise_level import NoiseLevel
from lightning_xai.studies.networks import (
    TrainedNetwork,
    callback_bounds,
    from_checkpoint,
    instantiated,
    parsed,
    restored,
    trained,
)

Stage = Literal["validate", "test"]


@dataclass(frozen=True)
class Lab:
    """Networks are trained where they are missing, as the configurations say, and kept.

    Args:
        root: Folder with the data sets, in torchvision's layout.
        backgrounds: Backgrounds of CMNIST: `cifar10`, `embedded`, or a folder of images.
        configs: Folder with the configurations of the networks; those that the package brings.
        checkpoints: Folder with trained networks, which are taken before one is trained; those that the package brings.
        cache: Folder where trained networks are kept.
        embedded: Use the data that the package carries instead of MNIST and CIFAR-10.
        device: That networks and images are on while they are examined.
        precision: Precision of the network while it is examined: `32-true`, or `bf16-mixed`, which is several times as
            fast where the hardware has it.
        seed: Seed of all noise.
        progress: Whether to show progress bars.

    Raises:
        ValueError: when it is asked for a network, data or masks that are not there.

    Example:
        >>> from lightning_xai.studies.lab import Lab
        >>> lab = Lab(embedded=True, device="cpu", progress=False)  # nothing to download
        >>> lab.samples(lab.data("mnist_lenet"), 4).images.shape
        torch.Size([4, 1, 28, 28])
    """

    root: str = "data"
    backgrounds: str = "cifar10"
    configs: str = str(carried_folder("configs"))
    checkpoints: str = str(carried_folder("checkpoints"))
    cache: str = "runs/networks"
    embedded: bool = False
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    precision: Precision = "32-true"
    seed: int = 0
    progress: bool = True

    def network(
        self,
        name: str,
        changes: Mapping[str, Any] | None = None,
        by_heart: bool = False,
        ckpt_path: str | None = None,
    ) -> TrainedNetwork:
        """The network of `configs/NAME.yaml`, or of the configuration in the file NAME, ready on the device.

        Args:
            changes: Values that replace the configuration's, by dotted name: `{"trainer.max_epochs": 3}`.
            by_heart: Trained on random labels until it knows 95 % of them; the accuracy is that on these.
            ckpt_path: A checkpoint of it, which is taken as it is; None for one that the package brings, or training.
        """
        config = self.config(name, changes or {})
        shipped = None if self.embedded else shipped_weights(self.checkpoints, name, changes or {}, by_heart)
        if ckpt_path is not None:
            found = from_checkpoint(config, carried_file("checkpoints", ckpt_path))
        else:
            found = restored(config, *shipped) if shipped else trained(config, Path(self.cache), by_heart)
        model = found.model.to(self.device).eval()
        if config["model"].get("init_args", {}).get("channels_last"):
            model = model.to(memory_format=torch.channels_last)
        return replace(found, model=model, given_bounds=callback_bounds(config))

    def twins(self, name: str, changes: Mapping[str, Any], number: int) -> list[TrainedNetwork]:
        """So many networks trained on random labels by heart: of the configuration's seed, and of the next ones."""
        seed = self.config(name, changes).get("seed_everything", 0)
        others = [{**changes, "seed_everything": seed + place} for place in range(1, number)]
        return [self.network(name, one, by_heart=True) for one in (changes, *others)]

    def config(self, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration, with the data where they are here."""
        is_file = name.endswith((".yaml", ".yml"))
        path = Path(carried_file("configs", name)) if is_file else Path(self.configs) / f"{name}.yaml"
        if not path.is_file():
            raise ValueError(
                f"`configs`: there is no {path}. Give the folder that has the configurations, or none for those that"
                " the package brings."
            )
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        for part in ("model", "data"):
            if not isinstance(config, Mapping) or "class_path" not in (config.get(part) or {}):
                raise ValueError(f"`configs`: {path} must have a `{part}` with a `class_path`: a network and its data.")
        own = {"accelerator": "gpu" if self.device.startswith("cuda") else "cpu", "enable_progress_bar": self.progress}
        config["trainer"] = {**(config.get("trainer") or {}), **own}
        config["data"] = self._data(config["data"])
        for place, value in changes.items():
            *folders, last = place.split(".")
            part = reduce(lambda part, folder: part.setdefault(folder, {}), folders, config)
            part[last] = deepcopy(value)
        return config

    def _data(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The data module's part of a configuration, with the data where they are here."""
        if not data["class_path"].startswith("lightning_xai."):
            return dict(data)  # knows itself where it is
        cmnist = data["class_path"].endswith("CMNISTDataModule")
        options = dict(data.get("init_args", {}))
        kind = getattr(data_modules, data["class_path"].rpartition(".")[2], None)
        # its own and its bases', for it hands options on; those that bring or draw their pictures need no folder
        makers = [vars(base)["__init__"] for base in getattr(kind, "__mro__", ()) if "__init__" in vars(base)]
        takes = {name for maker in makers for name in signature(maker).parameters}
        root = {"root": self.root} if "root" in takes else {}
        if isinstance(kind, type) and issubclass(kind, data_modules.TruthDataModule):
            digits = {"digits": "embedded"} if self.embedded and "digits" in takes else {}
            return {"class_path": data["class_path"], "init_args": options | root | digits}
        if self.embedded and not cmnist:
            return {
                "class_path": "lightning_xai.data.DigitsDataModule",
                "init_args": {"batch_size": min(32, options.get("batch_size", 32))},
            }
        if self.embedded:
            options |= {"digits": "embedded", "backgrounds": "embedded", "batch_size": 32}
        elif cmnist:
            options["backgrounds"] = self.backgrounds
        return {"class_path": data["class_path"], "init_args": options | root}

    def data(self, name: str, changes: Mapping[str, Any] | None = None) -> LightningDataModule:
        """The data of `configs/NAME.yaml`, prepared, without a network."""
        data = instantiated(parsed(self.config(name, changes or {}))).data
        data.prepare_data()
        return data

    def require(
        self, names: Sequence[str], changes: Mapping[str, Any] | None = None, masks: Sequence[str] = ()
    ) -> None:
        """Refuse configurations that are not there, or whose data lack masks, before any network is trained.

        Raises:
            ValueError: naming what is missing.
        """
        for name in names:
            self.config(name, changes or {})
        for name in names if masks else ():
            data = self.data(name, changes)
            if any(self.samples(data, 1, mask=mask).masks is None for mask in masks):
                raise ValueError(f"`network` must be one for data with masks, such as cmnist_resnet9, got {name!r}.")

    def samples(
        self,
        source: TrainedNetwork | LightningDataModule,
        number: int | None,
        stage: Stage = "test",
        mask: str | None = None,
    ) -> Samples:
        """Samples of a network's data, or of these data, evenly spaced, on the device.

        Args:
            number: How many; None for all.
            mask: The name of a mask, where the data have several.
        """
        data = source.data if isinstance(source, TrainedNetwork) else source
        data.setup("test" if stage == "test" else "fit")
        loader = data.test_dataloader() if stage == "test" else data.val_dataloader()
        places = spread(len(loader.dataset), number or len(loader.dataset))
        rows, take = range(len(loader.dataset)), partial(unpack, mask=mask or None)
        samples = read_rows(loader, rows, places, len(places), take)
        there = move_data_to_device(vars(samples), self.device)
        return Samples(**{**there, "index": samples.index, "masks": there["masks"] if mask else None})

    def noise_level(self, network: Any, samples: Samples, **options: Any) -> NoiseLevel:
        """The weight noise that costs a share of the network's accuracy; options of `find_noise_level`."""
        with in_precision(network.model, self.precision):
            return find_noise_level(
                network.model, samples.images, samples.labels, seed=self.seed, progress=self.progress, **options
            )


def described(networks: Mapping[str, Any]) -> dict[str, Any]:
    """For the settings of a result: what networks were examined, and how well they had learned, where that is known."""
    return {
        name: ({} if network.accuracy is None else {"accuracy": network.accuracy}) | dict(network.settings)
        for name, network in networks.items()
    }
