from collections.abc import Callable
from pathlib import Path

import pytest

from u2net_platform.domains.discovery import discover
from u2net_platform.errors import DomainError
from u2net_platform.settings import Settings
from u2net_platform.testing.contract import check_plugin

NewPlugin = Callable[..., Path]
BUNDLED = [one.directory for one in discover(Settings()) if one.source == "bundled"]
CLEAN = "def clean_image(image, spacing_zyx_mm):\n    "
POST = "def postprocess(labels, spacing_zyx_mm):\n    "


@pytest.mark.parametrize("directory", BUNDLED, ids=lambda path: path.name)
def test_every_bundled_plugin_keeps_the_contract(directory: Path) -> None:
    check_plugin(directory)


def test_a_plugin_with_well_behaved_hooks_keeps_it(tmp_path: Path, new_plugin: NewPlugin) -> None:
    code = f"{CLEAN}return image * 2\n{POST}return labels.copy()\n"
    check_plugin(new_plugin(tmp_path, "kidney", code))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (f"{CLEAN}return image[0]", "shape"),
        (f"{CLEAN}return image.astype('float64')", "float64"),
        (f"{CLEAN}return image * float('inf')", "finite"),
        (f"{CLEAN}image[:] = 0\n    return image", "changes its input"),
        (f"{CLEAN}return None", "NoneType"),
        (f"{POST}return labels + labels.dtype.type(1)", "not declared"),
        (f"import threading\nl = threading.Lock()\n{CLEAN}with l: return image * 2", "process"),
        (f"import socket\n{POST}socket.create_connection(('localhost', 9))", "network"),
    ],
)
def test_a_hook_that_breaks_the_contract_is_found(
    tmp_path: Path, new_plugin: NewPlugin, code: str, reason: str
) -> None:
    with pytest.raises(AssertionError, match=reason):
        check_plugin(new_plugin(tmp_path, "kidney", code))


def test_code_that_asks_the_network_on_import_does_not_load(
    tmp_path: Path, new_plugin: NewPlugin
) -> None:
    code = "import socket\nsocket.create_connection(('localhost', 9))"
    with pytest.raises(DomainError, match="network"):
        check_plugin(new_plugin(tmp_path, "kidney", code))


def test_a_plugin_without_a_data_card_that_names_the_licence_is_found(
    tmp_path: Path, new_plugin: NewPlugin
) -> None:
    directory = new_plugin(tmp_path, "kidney")
    (directory / "README.md").write_text("# kidney\n")
    with pytest.raises(AssertionError, match="CC0"):
        check_plugin(directory)
    (directory / "README.md").unlink()
    with pytest.raises(AssertionError, match="data card"):
        check_plugin(directory)
