"""A version as MLflow loads it: `mlflow.pyfunc.load_model("models:/u2net-heart@champion")`.

MLflow keeps a bundle and the name of this module, and calls `_load_pyfunc`. Nothing is unpickled.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from u2net_platform.domains.discovery import find_plugin
from u2net_platform.domains.plugin import DomainPlugin, with_hooks
from u2net_platform.errors import InvalidDataset
from u2net_platform.imaging.volume import LabelVolume
from u2net_platform.inference.device import choose_device
from u2net_platform.inference.predictor import Predictor
from u2net_platform.settings import Settings
from u2net_platform.workflows.bundle_file import read_bundle
from u2net_platform.workflows.bundle_parts import Parts, parts_of
from u2net_platform.workflows.labeller import Labeller
from u2net_platform.workflows.predict import find_inputs

if TYPE_CHECKING:
    import pandas

BUNDLE_FILE = "version.u2net"


class RegisteredModel:
    """What is behind `predict` of an MLflow model."""

    def __init__(self, labeller: Labeller) -> None:
        self.labeller = labeller

    def predict(self, images: pandas.DataFrame) -> list[NDArray[np.uint8]] | pandas.DataFrame:
        """Label images, one a row.

        images: column `image` has the path of a file, of a DICOM folder, or of a folder with the
            files of one case's channels. A column `output` says where labels are written: none
            of these files may be there.

        Returns the classes of each image on its own grid (z y x, uint8); with `output`, the table
        as it came, once all is written.

        Raises:
            U2NetError: as `api.Model.predict`; the images before it have been written.
        """
        if "output" not in images:
            return [self._label(Path(path)).array for path in images["image"]]
        for path, output in zip(images["image"], images["output"], strict=True):
            self._label(Path(path), Path(output))
        return images

    def _label(self, path: Path, target: Path | None = None) -> LabelVolume:
        cases = find_inputs(path).cases
        if len(cases) > 1:
            raise InvalidDataset(f"{path} holds {len(cases)} cases", "Name one image a row.")
        if target is not None:
            self.labeller.require_target(target, cases[0].images)
        scan = self.labeller.read(cases[0].images)
        return self.labeller.label(scan, target, warnings.warn).labels


def _load_pyfunc(path: str) -> RegisteredModel:
    """Put together what a registered model holds; `path` is its folder of data.

    Raises:
        BundleAltered, BundleUnsafe, BundleSchema: its bundle is not as it was written.
        InvalidSpec, IncompatibleParts: its parts do not fit together, or it was made with a
            plugin's code that is not on this machine.
    """
    contents = read_bundle(Path(path) / BUNDLE_FILE)
    parts = parts_of(contents, contents.manifest.version)
    plugin = _plugin(contents.manifest.version, parts)
    predictor = Predictor(parts.network, plugin, parts.plan, choose_device("auto"))
    digests = {"backbone": parts.new.backbone_digest, "domain": parts.new.domain_digest}
    return RegisteredModel(Labeller(predictor, contents.manifest.version, digests))


def _plugin(version: str, parts: Parts) -> DomainPlugin:
    """The bundle's spec, with hooks from disk where the version was made with some."""
    return with_hooks(
        parts.spec,
        parts.new.plugin_digest,
        lambda: find_plugin(parts.spec.name, Settings()).working,
        version,
        f"MLflow carries no code. Put the plugin's folder into {Settings().plugins_dir}, then load"
        " it again.",
    )
