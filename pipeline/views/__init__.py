"""Views: replayable augmentations, drawn by arithmetic and applied exactly.

Every other file here whose name does not start with an underscore is an operation: `pad_crop.py` is what a
configuration calls `pad-crop`. It declares `class Options(OperationOptions)` and `build(options) -> Operation`.
"""

from pipeline.views._config import Operations, ViewsConfig
from pipeline.views._digest import digest
from pipeline.views._operation import Images, Operation, OperationOptions, Size
from pipeline.views._views import Views, build_views, sizes_of

__all__ = [
    "Images",
    "Operation",
    "OperationOptions",
    "Operations",
    "Size",
    "Views",
    "ViewsConfig",
    "build_views",
    "digest",
    "sizes_of",
]
