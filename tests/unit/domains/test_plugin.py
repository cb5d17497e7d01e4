from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import BrokenPlugin

NewPlugin = Callable[..., Path]
NEGATE = "def clean_image(image, spacing_zyx_mm):\n    return -image\n"


def test_hooks_are_those_that_the_code_defines(tmp_path: Path, new_plugin: NewPlugin) -> None:
    plugin = DomainPlugin.load(new_plugin(tmp_path, "kidney", NEGATE))
    assert plugin.clean_image is not None
    assert plugin.clean_image(3, (1.0, 1.0, 1.0)) == -3  # type: ignore[arg-type, comparison-overlap]
    assert plugin.postprocess is None


def test_code_with_a_dataclass_is_no_fault(tmp_path: Path, new_plugin: NewPlugin) -> None:
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Window:\n    low: float\n" + NEGATE
    )
    assert DomainPlugin.load(new_plugin(tmp_path, "kidney", code)).clean_image is not None


def test_a_hook_that_is_no_function_is_refused(tmp_path: Path, new_plugin: NewPlugin) -> None:
    with pytest.raises(BrokenPlugin, match="postprocess"):
        DomainPlugin.load(new_plugin(tmp_path, "kidney", "postprocess = 3"))


def test_the_digest_follows_spec_and_code(tmp_path: Path, new_plugin: NewPlugin) -> None:
    directory = new_plugin(tmp_path, "kidney")
    digests = [DomainPlugin.load(directory).digest]
    (directory / "plugin.py").write_text(NEGATE)
    digests.append(DomainPlugin.load(directory).digest)
    spec = directory / "domain.toml"
    spec.write_text(spec.read_text().replace("made-up", "real"))
    digests.append(DomainPlugin.load(directory).digest)
    (directory / "test_kidney.py").write_text("")  # no part of the plugin
    assert len(set(digests)) == 3
    assert DomainPlugin.load(directory).digest == digests[-1]


def test_words_for_people_change_neither_weights_nor_scores(
    tmp_path: Path, new_plugin: NewPlugin
) -> None:
    plugin = DomainPlugin.load(new_plugin(tmp_path, "kidney", NEGATE))

    def digests(**changes: object) -> tuple[str, str]:
        spec = plugin.spec.model_validate(plugin.spec.document() | changes)
        changed = replace(plugin, spec=spec)
        return changed.effective_digest, changed.preparation_digest

    effective, preparation = digests()
    card = plugin.spec.data.model_dump() | {"citation": "corrected"}
    assert digests(description="other words", data=card) == (effective, preparation)
    for change in ({"evaluation": {"surface_tolerance_mm": 2.0}}, {"modality": "PET"}):
        other, same = digests(**change)
        assert (other != effective, same) == (True, preparation)
    assert digests(channels=["other"])[1] != preparation
    assert replace(plugin, code_digest="other").effective_digest != effective


def test_what_a_plugin_prints_is_no_data_of_a_command(
    tmp_path: Path, new_plugin: NewPlugin, capsys: pytest.CaptureFixture[str]
) -> None:
    DomainPlugin.load(new_plugin(tmp_path, "kidney", "print('hello')\n" + NEGATE))
    assert capsys.readouterr() == ("", "hello\n")
