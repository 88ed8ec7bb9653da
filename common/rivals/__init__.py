"""Put networks of MONAI in the place of a bundle's network, for a comparison in the same pipeline."""

from .dynunet import dynunet
from .rival import Rival, SingleFormRival

__all__ = ["Rival", "SingleFormRival", "dynunet"]
