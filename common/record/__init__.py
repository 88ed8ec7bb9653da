"""Record a training: settings of its weights and cases that they have seen; use the record with the weights."""

from .apply import apply_settings, check_unseen, use_record
from .create import run_record
from .identity import digest_of
from .run_record import RECORD_FILE, UNTRAINED, RunRecord, made_by, read_record, record_of, record_path

__all__ = [
    "RECORD_FILE",
    "UNTRAINED",
    "RunRecord",
    "apply_settings",
    "check_unseen",
    "digest_of",
    "made_by",
    "read_record",
    "record_of",
    "record_path",
    "run_record",
    "use_record",
]
