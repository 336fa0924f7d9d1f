"""FocalDiffusion: an all-in-focus image and metric depth from a focal stack."""

import logging

__version__ = "0.1.0"

# diffusers imports it wherever it is installed, and on some CPUs it warns of a kernel of its own
# that it lacks, on every command's standard error.
logging.getLogger("bitsandbytes").addHandler(logging.NullHandler())
