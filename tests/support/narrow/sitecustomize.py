"""Makes torchvision's ResNet-18 narrow in every Python process with this folder in PYTHONPATH."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_RESNET = "torchvision.models.resnet"


class _Narrowing(MetaPathFinder, Loader):
    """Loads torchvision's module and replaces its function."""

    def __init__(self) -> None:
        self._usual: ModuleSpec | None = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find the module as usual, but load it here."""
        if name != _RESNET:
            return None
        sys.meta_path.remove(self)
        self._usual = importlib.util.find_spec(name)
        return importlib.util.spec_from_loader(name, self)

    def exec_module(self, module: ModuleType) -> None:
        """Load it and replace the function before `torchvision.models` imports it from there."""
        assert self._usual is not None
        assert self._usual.loader is not None
        self._usual.loader.exec_module(module)
        from narrow_resnet import narrow_resnet18  # type: ignore[import-not-found]

        module.resnet18 = narrow_resnet18  # type: ignore[attr-defined]


sys.meta_path.insert(0, _Narrowing())
