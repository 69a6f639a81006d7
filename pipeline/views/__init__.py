"""Makes views: replayable augmentations, drawn by arithmetic and applied exactly.

Every other file here whose name does not start with an underscore is an operation: `pad_crop.py` is what a
configuration calls `pad-crop`. It declares `class Options(OperationOptions)` and `build(options) -> Operation`.
"""

from typing import TYPE_CHECKING

from pipeline.data.split import Images
from pipeline.late import late_names
from pipeline.views.config import Operations, ViewsConfig, ViewsSection
from pipeline.views.operation import Operation, OperationOptions, Size

if TYPE_CHECKING:
    from pipeline.views.mixing import MixingOperation
    from pipeline.views.pixel_digest import digest
    from pipeline.views.rendering import DrawnViews, SampleViews, view_of
    from pipeline.views.views import Views, build_views, sizes_of
else:
    __getattr__ = late_names(
        __name__,
        mixing="MixingOperation",
        pixel_digest="digest",
        rendering="DrawnViews SampleViews view_of",
        views="Views build_views sizes_of",
    )

__all__ = [
    "DrawnViews",
    "Images",
    "MixingOperation",
    "Operation",
    "OperationOptions",
    "Operations",
    "SampleViews",
    "Size",
    "Views",
    "ViewsConfig",
    "ViewsSection",
    "build_views",
    "digest",
    "sizes_of",
    "view_of",
]
