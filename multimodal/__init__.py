"""multimodal: one vector space for every form a thing comes in.

The public names are listed in ``__init__.pyi``. Each is imported when it is first used, so that ``import multimodal`` takes
no time.
"""

import lazy_loader

__version__ = "0.1.0"  # the one place for it: packaging and CITATION.cff go by this line

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["__version__", *_names]
