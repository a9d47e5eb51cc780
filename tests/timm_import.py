"""timm next to a torch whose torchvision cannot load its compiled operators.

Such a torchvision raises RuntimeError at import ("operator torchvision::nms does not exist"), and everything that
imports it fails with it: timm, and transformers where it looks for torchvision. Declaring the missing operators lets
the import pass; nothing here calls one. Only tests may do so.
"""

import importlib.util
import sys
from types import ModuleType

import pytest

_OPERATORS = ("qnms", "roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d")
_kept: list[object] = []  # declarations end with the object that made them


def make_torchvision_importable() -> None:
    """Declare the operators that the installed torchvision lacks; nothing where it works or is not installed.

    To be called before anything imports transformers, which does not ask twice.
    """
    if _kept or importlib.util.find_spec("torchvision") is None or _works():
        return
    import torch

    library = torch.library.Library("torchvision", "DEF")
    _kept.append(library)
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor input) -> Tensor")
        library.define(f"_{name}_backward(Tensor input) -> Tensor")


def _works() -> bool:
    """Whether torchvision imports as it is; a failure leaves no half-imported module behind."""
    before = set(sys.modules)
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "torchvision":
                del sys.modules[name]
        return False
    return True


def timm_or_skip() -> ModuleType:
    """timm, or a skipped test that says what to install."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported ({error}): pip install 'mvit-search[timm]'")
    return timm
