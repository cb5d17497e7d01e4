"""A domain as a plugin: what it declares, and the few steps that it may replace with code."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from u2net_platform.domains.spec import DomainSpec, digest_of
from u2net_platform.errors import BrokenPlugin, DomainError, IncompatibleParts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    SpacingZYX = tuple[float, float, float]
    CleanImage = Callable[[NDArray[np.float32], SpacingZYX], NDArray[np.float32]]
    Postprocess = Callable[[NDArray[np.uint8], SpacingZYX], NDArray[np.uint8]]

SPEC_FILE = "domain.toml"
HOOKS_FILE = "plugin.py"
CARD_FILE = "README.md"
WORDS = {"description", "data"}  # of a spec, for people to read
# No case is prepared by these either; the plan has a digest of its own.
UNREAD = WORDS | {"modality", "subject", "augmentation", "evaluation", "postprocessing", "plan"}


@dataclass(frozen=True)
class DomainPlugin:
    """A domain's spec, and the steps that its `plugin.py` puts in place of the platform's own.

    clean_image: raw intensities (c z y x, float32, read-only) and spacing in mm to raw intensities
        of the same shape, before anything else happens to them.
    postprocess: predicted classes (z y x, uint8) and spacing in mm to classes of the same shape.

    Both see volumes that are turned: z ascends to the head, y to the back, x to the left.
    """

    spec: DomainSpec
    directory: Path
    clean_image: CleanImage | None = None
    postprocess: Postprocess | None = None
    code_digest: str = ""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def digest(self) -> str:
        """Digest of spec and code: what a version depends on."""
        return hashlib.sha256(f"{self.spec.digest}{self.code_digest}".encode()).hexdigest()

    @property
    def preparation_digest(self) -> str:
        """Digest of code, and of the spec as far as preparing a case reads it."""
        return self._digest_without(UNREAD)

    @property
    def effective_digest(self) -> str:
        """Digest of spec and code without what changes neither weights nor scores."""
        return self._digest_without(WORDS)

    def _digest_without(self, keys: set[str]) -> str:
        rest = {key: value for key, value in self.spec.document().items() if key not in keys}
        return hashlib.sha256(f"{digest_of(rest)}{self.code_digest}".encode()).hexdigest()

    @classmethod
    def load(cls, directory: Path) -> DomainPlugin:
        """Load the plugin in a folder that holds a domain.toml and perhaps a plugin.py.

        Raises:
            InvalidSpec, MissingFile, BrokenPlugin: with the reason.
        """
        spec = DomainSpec.load(directory / SPEC_FILE)
        code = directory / HOOKS_FILE
        if not (code.exists() or code.is_symlink()):  # a link to nowhere is no plugin without code
            return cls(spec, directory)
        module = _import(code, spec.name)
        return cls(
            spec,
            directory,
            clean_image=_hook(module, "clean_image"),
            postprocess=_hook(module, "postprocess"),
            code_digest=hashlib.sha256(code.read_bytes()).hexdigest(),
        )


def with_hooks(
    spec: DomainSpec, digest: str, load: Callable[[], DomainPlugin], what: str, remedy: str
) -> DomainPlugin:
    """The plugin of this spec and digest: without hooks, or with those of the plugin that `load`
    finds. What else that plugin declares does not matter.

    Raises:
        IncompatibleParts: it has other hooks, or cannot be loaded; `what` needs them.
    """
    plain = DomainPlugin(spec, Path())
    if plain.digest == digest:
        return plain
    reason = f"{what} was made with a plugin's code that this machine does not have"
    try:
        found = replace(load(), spec=spec)
    except DomainError as error:
        raise IncompatibleParts(f"{reason}: {error.message}", remedy) from error
    if found.digest != digest:
        raise IncompatibleParts(reason, remedy)
    return found


def _hook(module: ModuleType, name: str) -> Any:
    hook = getattr(module, name, None)
    if hook is None or callable(hook):
        return hook
    raise BrokenPlugin(f"{name} in {module.__file__} is no function", "Make it one, or remove it.")


def _import(code: Path, name: str) -> ModuleType:
    module_spec = importlib.util.spec_from_file_location(f"u2net_plugin_{name}", code)
    if module_spec is None or module_spec.loader is None:
        raise BrokenPlugin(f"{code} is no Python file", "Rename or remove it.")
    module = importlib.util.module_from_spec(module_spec)
    # Dataclasses look for their module there. It does not stay: what is in no known module is
    # pickled whole, and so reaches other processes.
    sys.modules[module_spec.name] = module
    try:
        with redirect_stdout(sys.stderr):  # stdout is for a command's data
            module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a plugin's own code may raise anything
        raise BrokenPlugin(
            f"{code} fails on import: {type(error).__name__}: {error}", "Correct the plugin's code."
        ) from error
    finally:
        del sys.modules[module_spec.name]
    return module
