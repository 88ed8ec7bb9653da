"""MONAI's engines and what they lack: stages that resume exactly, evaluation that survives a broken case."""

from .case_evaluator import CaseEvaluator
from .case_results import CaseResults
from .checkpoints import load_weights, save_whole
from .staged_trainer import StagedTrainer
from .stages import Plateau, Stage
from .supervised import supervised

__all__ = [
    "CaseEvaluator",
    "CaseResults",
    "Plateau",
    "Stage",
    "StagedTrainer",
    "load_weights",
    "save_whole",
    "supervised",
]
