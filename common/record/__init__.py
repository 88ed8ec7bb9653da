"""The record of a training: what its weights are, which cases they have seen, and what they may be used with."""

from .cases import digest_of
from .making import run_record
from .run_record import RECORD_FILE, UNTRAINED, RunRecord, made_by, read_record, record_path
from .use import apply_settings, check_unseen, use_record

__all__ = [
    "RECORD_FILE",
    "UNTRAINED",
    "RunRecord",
    "apply_settings",
    "check_unseen",
    "digest_of",
    "made_by",
    "read_record",
    "record_path",
    "run_record",
    "use_record",
]
