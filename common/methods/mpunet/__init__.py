"""Segment the liver in CT by MPU-Net (Yu et al., arXiv:2307.05799).

- ``slab``: the slices with liver and 20 more on either side, as in the released code (section 4.1).
- ``network``: the encoder and the position attention (3.2, eq. 6 to 9), the gates (3.3.1, eq. 10 to 13), the decoder
  (3.3.2, eq. 14 to 17) and the mean of four scales (3.3.4, eq. 18); ``attention`` and ``blocks`` hold its parts.
- ``unet``: the additive U-Net, the paper's baseline (table 6).
- ``loss``: Tversky loss and cross-entropy of one map (3.4, eq. 19), and their sum over the four scales.
- ``phantom``: a synthetic torso with tumours of the liver; ours.

Resampling and clipping (4.1) are in ``common.transforms``; the scores (eq. 20 to 25) in ``common.metrics``; the
training loop (4.2) is ``common.engines.supervised``. Figure by figure, and the list of deviations from the paper:
``docs/explanation/mpunet.md``.
"""

from .loss import DeepSupervisionLoss, TverskyCrossEntropyLoss
from .network import MPUNet
from .phantom import LiverPhantom
from .slab import CropSlabd
from .unet import AdditiveUNet

__all__ = [
    "AdditiveUNet",
    "CropSlabd",
    "DeepSupervisionLoss",
    "LiverPhantom",
    "MPUNet",
    "TverskyCrossEntropyLoss",
]
