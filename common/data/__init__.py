"""From files to cases: finding, listing, reading, writing and sampling them."""

from .cases import find_cases, load_cases, rank_share
from .dataset import CaseDataset, CaseSampler, SampledCacheDataset, share_of_batch
from .dicom_seg import WriteDicomSegd
from .intensity import intensity_of, keep_intensity, read_intensity
from .streams import StreamsDataset
from .volumes import AtomicNibabelWriter, VolumeReader

__all__ = [
    "AtomicNibabelWriter",
    "CaseDataset",
    "CaseSampler",
    "SampledCacheDataset",
    "StreamsDataset",
    "VolumeReader",
    "WriteDicomSegd",
    "find_cases",
    "intensity_of",
    "keep_intensity",
    "load_cases",
    "rank_share",
    "read_intensity",
    "share_of_batch",
]
