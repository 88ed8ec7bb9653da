"""Segment gliomas in brain MRI by OM-Net (Zhou et al., doi:10.1109/TIP.2020.2973510).

- ``classes``: the classes and the three tasks (section III-A).
- ``brain``: normalisation over the brain and the crop to it (IV).
- ``label_codes``: the label codes of BraTS and other public data as classes, and back (IV).
- ``patches``: training patches of the three tasks, centred in the brain, around the tumour and in the core (III-A).
- ``network``: OM-Net (III-B, fig. 2, and its guided heads, III-C, fig. 3).
- ``attention``: cross-task guided attention (III-C, fig. 4, eq. 3 to 9).
- ``tiling``: windows of a tile, over which the attention may take its statistics; ours.
- ``cascade_network``: the model cascade, one network for each task (III-A, fig. 1).
- ``loss``: softmax cross-entropy, summed over the tasks (III-B).
- ``training``: the curriculum and the online transfer of patches (III-B, eq. 1 and 2), and the optimiser (IV-C).
- ``cascade_inferer``: sliding windows that compute a later task only where an earlier one found something; ours.
- ``fusion``: one label map, and probabilities of its classes, from the probabilities of the three tasks (III-A).
- ``postprocessing``: removal of small components, and core recovered from oedema by K-means (III-D).
- ``phantom``: a synthetic brain that needs all four modalities; ours.

Figure by figure, and the list of deviations from the paper: ``docs/explanation/omnet.md``.
"""

from .brain import CropBraind, NormalizeBraind, brain_mask
from .cascade_inferer import CascadeInferer
from .cascade_network import Cascade, SingleTaskNet
from .fusion import FuseTasksd, fused_probabilities
from .label_codes import BratsLabelsd, ToBratsd, to_brats
from .loss import MultiTaskCrossEntropy
from .network import OMNet
from .patches import FindPatchCentresd, StreamsDataset
from .phantom import BRAIN_DISTRACTORS, BRAIN_SIGNALS, BrainPhantom
from .postprocessing import CleanTumourd
from .training import one_pass

__all__ = [
    "BRAIN_DISTRACTORS",
    "BRAIN_SIGNALS",
    "BrainPhantom",
    "BratsLabelsd",
    "Cascade",
    "CascadeInferer",
    "CleanTumourd",
    "CropBraind",
    "FindPatchCentresd",
    "FuseTasksd",
    "MultiTaskCrossEntropy",
    "NormalizeBraind",
    "OMNet",
    "SingleTaskNet",
    "StreamsDataset",
    "ToBratsd",
    "brain_mask",
    "fused_probabilities",
    "one_pass",
    "to_brats",
]
