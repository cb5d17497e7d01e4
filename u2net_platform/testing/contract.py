"""The contract between a domain plugin and the platform, for authors of plugins to test against.

In a plugin's own tests::

    from u2net_platform.testing.contract import check_plugin

    def test_the_plugin_keeps_the_contract():
        check_plugin(Path("plugins/kidney"))
"""

from __future__ import annotations

import json
import socket
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from u2net_platform.domains.plugin import CARD_FILE, DomainPlugin
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.domains.toml import to_toml

_SHAPE_ZYX = (6, 8, 10)
_SPACING_ZYX_MM = (3.0, 1.0, 1.0)


def check_plugin(directory: Path) -> None:
    """Check that the plugin in `directory` can be used by every part of the platform.

    It loads without a network, with the same digest each time; its spec survives a round trip
    through JSON and TOML; its data card names the licence; its hooks keep shape and type, leave
    their input alone, and can be sent to the processes that prepare cases.

    Raises:
        AssertionError: the contract is broken; the message says where.
        DomainError: the plugin does not load.
    """
    with _no_network():
        plugin = DomainPlugin.load(directory)
        assert DomainPlugin.load(directory).digest == plugin.digest, "digest differs between loads"
        _check_hooks(plugin)
        _check_travel(plugin)
    _check_round_trips(plugin.spec)
    _check_data_card(plugin)


def _check_round_trips(spec: DomainSpec) -> None:
    for form, content in (
        ("JSON", json.loads(spec.model_dump_json())),
        ("TOML", tomllib.loads(to_toml(spec))),
    ):
        assert DomainSpec.parse(content, form) == spec, f"the spec does not survive {form}"


def _check_data_card(plugin: DomainPlugin) -> None:
    card = plugin.directory / CARD_FILE
    assert card.is_file(), f"there is no data card {card}"
    licence = plugin.spec.data.licence
    assert licence.strip(), "data.licence is empty"
    assert licence in card.read_text(encoding="utf-8"), f"{card} does not name {licence!r}"


def _check_hooks(plugin: DomainPlugin) -> None:
    random = np.random.default_rng(0)
    channels = len(plugin.spec.channels)
    # c z y x
    image = random.normal(size=(channels, *_SHAPE_ZYX)).astype(np.float32)
    labels = random.integers(0, plugin.spec.classes, size=_SHAPE_ZYX, dtype=np.uint8)
    if plugin.clean_image is not None:
        cleaned = _check_hook("clean_image", plugin.clean_image, image)
        assert np.isfinite(cleaned).all(), "clean_image makes values that are not finite"
    if plugin.postprocess is not None:
        classes = _check_hook("postprocess", plugin.postprocess, labels)
        assert classes.max() < plugin.spec.classes, "postprocess makes a class that is not declared"


def _check_travel(plugin: DomainPlugin) -> None:
    try:
        cloudpickle.loads(cloudpickle.dumps(plugin))
    except Exception as error:  # what cannot be pickled raises what it likes
        raise AssertionError(
            f"plugin.py holds what no other process can be given: {error}"
        ) from error


def _check_hook(name: str, hook: Callable[..., Any], volume: NDArray[Any]) -> NDArray[Any]:
    before = volume.copy()
    result = hook(volume, _SPACING_ZYX_MM)
    assert isinstance(result, np.ndarray), f"{name} returns {type(result).__name__}, not an array"
    assert result.shape == before.shape, f"{name} turns shape {before.shape} into {result.shape}"
    assert result.dtype == before.dtype, f"{name} turns {before.dtype} into {result.dtype}"
    assert np.array_equal(volume, before), f"{name} changes its input"
    return result


@contextmanager
def _no_network() -> Iterator[None]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the plugin uses the network")

    with (
        patch.object(socket.socket, "connect", refuse),
        patch.object(socket, "getaddrinfo", refuse),
    ):
        yield
