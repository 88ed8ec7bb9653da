"""From files to cases: finding, listing, reading, writing and sampling them."""

from .cases import find_cases, load_cases, rank_share, without_results
from .dataset import CaseDataset, CaseSampler, SampledCacheDataset, share_of_batch
from .streams import StreamsDataset
from .volumes import AtomicNibabelWriter, VolumeReader

__all__ = [
    "AtomicNibabelWriter",
    "CaseDataset",
    "CaseSampler",
    "SampledCacheDataset",
    "StreamsDataset",
    "VolumeReader",
    "find_cases",
    "load_cases",
    "rank_share",
    "share_of_batch",
    "without_results",
]
