"""torch.compile where it works, and a sentence where it does not: it needs a C++ compiler at run time (nanoGPT #226)."""

from __future__ import annotations

import torch
from torch import nn

from chatwright.i18n import _


def compile_model(model: nn.Module) -> str | None:
    """Compiles each layer in place: names of parameters stay as they are, and equal layers are compiled once.

    Returns a sentence for the user when this machine cannot, and leaves the model as it is.
    """
    try:
        torch.compile(_probe)(torch.ones(8))
    except (RuntimeError, OSError, ImportError) as error:
        torch._dynamo.reset()
        reason = str(error).strip().splitlines()[0][:200]
        return _("This machine cannot compile ({reason}); training goes on without.", reason=reason)
    for layer in getattr(model, "layers", [model]):
        layer.compile()
    return None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x * 2 + 1
