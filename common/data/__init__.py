"""From files to cases: finding, listing, reading, writing and sampling them."""

from .cases import find_cases, load_cases, rank_share, without_results
from .dataset import CaseDataset, CaseSampler, SampledCacheDataset
from .volumes import AtomicNibabelWriter, VolumeReader

__all__ = [
    "AtomicNibabelWriter",
    "CaseDataset",
    "CaseSampler",
    "SampledCacheDataset",
    "VolumeReader",
    "find_cases",
    "load_cases",
    "rank_share",
    "without_results",
]
