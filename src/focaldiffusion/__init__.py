"""FocalDiffusion: an all-in-focus image and metric depth from a focal stack."""

__version__ = "0.1.0"
