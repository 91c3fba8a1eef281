"""multimodal: one vector space for every form a thing comes in.

The public names are listed in ``__init__.pyi``. Each is imported when it is first used, so that ``import multimodal`` takes
no time.
"""

from typing import Any

import lazy_loader

from multimodal.core.library_warnings import ignore_import_warnings

__version__ = "0.1.0"  # the one place for it: packaging and CITATION.cff go by this line

_import, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["__version__", *_names]


def __getattr__(name: str) -> Any:
    with ignore_import_warnings():
        value = _import(name)
    globals()[name] = value  # the next use is a plain lookup
    return value
