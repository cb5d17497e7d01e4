"""A network and a domain's plan, as one thing that turns images into labels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from u2net_platform.data.integrity import check_image
from u2net_platform.data.plan import Plan
from u2net_platform.data.preprocessing import preprocess
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.imaging.resampling import labels_from_scores
from u2net_platform.imaging.volume import Grid, ImageVolume, LabelVolume, canonical
from u2net_platform.inference.postprocessing import postprocess
from u2net_platform.inference.sliding_window import sliding_window


class Predictor:
    """Predicts one domain. Moves the network to `device`, and puts it into evaluation mode for
    as long as a prediction lasts."""

    def __init__(
        self,
        network: nn.Module,
        plugin: DomainPlugin,
        plan: Plan,
        device: torch.device,
        batch_size: int | None = None,
    ) -> None:
        """`network(x, domain=name)` gives logits; `batch_size` is the plan's unless given."""
        self.network = network.to(device)
        self.plugin = plugin
        self.plan = plan
        self.device = device
        self.batch_size = batch_size or plan.batch_size

    def predict(self, image: ImageVolume, name: str = "The image") -> LabelVolume:
        """Labels on the image's own grid, whatever its spacing and orientation.

        Raises:
            WrongChannels, NonFiniteImage, EmptyImage: it is none of this domain; `name` says which.
            BrokenPlugin: a hook of the plugin fails.
        """
        return self.predict_clean(check_image(self.plugin, canonical(image), name), image.grid)

    def predict_clean(self, image: ImageVolume, target: Grid) -> LabelVolume:
        """Labels on `target` for an image as `load_case` returns it: canonical and cleaned."""
        prepared = preprocess(image, self.plugin.spec, self.plan)
        scores = self._scores(prepared.array).numpy()
        labels = labels_from_scores(scores, prepared.grid, target)
        return LabelVolume(postprocess(self.plugin, labels.array, target.spacing_zyx_mm), target)

    def predict_prepared(self, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Classes (z y x) of a prepared image (c z y x), on the plan's grid."""
        return self._scores(image).argmax(0).to(torch.uint8).numpy()

    def _scores(self, image: NDArray[np.float32]) -> Tensor:
        """Class probabilities, k z y x, in main memory: only patches travel to the device."""
        mode = [(module, module.training) for module in self.network.modules()]
        self.network.eval()
        try:
            volume = torch.tensor(image)  # a copy: a prepared image is a read-only file
            return sliding_window(volume, self.plan.patch_zyx, self._probabilities, self.batch_size)
        finally:
            for module, training in mode:
                module.training = training

    def _probabilities(self, patches: Tensor) -> Tensor:  # b c z y x -> b k z y x
        logits = self.network(patches.to(self.device), domain=self.plugin.name)
        return torch.softmax(logits.float(), dim=1)
