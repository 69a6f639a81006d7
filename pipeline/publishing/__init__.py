"""Makes artifacts so that none is ever half there: locked while it is made, resumed after a fault, renamed when whole.

An artifact is a folder with its fingerprint in the file `.fingerprint`: a teacher cache, or what a training run leaves.
"""

from pipeline.publishing.fingerprint import canonical, differences, fingerprint
from pipeline.publishing.scratch import Scratch, print_message

__all__ = ["Scratch", "canonical", "differences", "fingerprint", "print_message"]
