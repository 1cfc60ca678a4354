"""unfused-ray: distributed self-supervised audio training on Ray (DECAR-v2 and UnFuSeD).

Jobs, as on the command line: prepare, pretrain, distill, evaluate, compare, sweep, embed, index, search, duplicates,
export. Networks: load_encoder, load_student. Settings: recipe. Each name is imported at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

__all__ = [
    "__version__",
    "compare",
    "distill",
    "duplicates",
    "embed",
    "evaluate",
    "export",
    "index",
    "load_encoder",
    "load_student",
    "prepare",
    "pretrain",
    "recipe",
    "search",
    "sweep",
]

if TYPE_CHECKING:
    from unfused_ray.api import (
        compare,
        distill,
        duplicates,
        embed,
        evaluate,
        export,
        index,
        prepare,
        pretrain,
        search,
        sweep,
    )
    from unfused_ray.models.export import load_encoder, load_student
    from unfused_ray.recipes import recipe
else:
    _ELSEWHERE = {"load_encoder": "models.export", "load_student": "models.export", "recipe": "recipes"}

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
