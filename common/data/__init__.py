"""Find, list, read, write and sample cases."""

from .dataset import CachedCases, CaseDataset, CaseSampler, SampledCacheDataset, TrainingLoader, batch_size_per_rank
from .foreground import check_foreground
from .found_cases import find_cases
from .intensity_statistics import intensity_of, keep_intensity, read_intensity
from .listed_cases import load_cases, shard_for_rank
from .nifti_writer import AtomicNibabelWriter
from .spacing import CheckSpacingd, grid_summary
from .volume_reader import VolumeReader

__all__ = [
    "AtomicNibabelWriter",
    "CachedCases",
    "CaseDataset",
    "CaseSampler",
    "CheckSpacingd",
    "SampledCacheDataset",
    "TrainingLoader",
    "VolumeReader",
    "batch_size_per_rank",
    "check_foreground",
    "find_cases",
    "grid_summary",
    "intensity_of",
    "keep_intensity",
    "load_cases",
    "read_intensity",
    "shard_for_rank",
]
