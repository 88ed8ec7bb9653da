"""Extend MONAI's engines: stages that resume exactly, evaluation that goes on after a broken case."""

from .case_evaluator import CaseEvaluator
from .case_results import CaseResults
from .checkpoints import load_weights, save_whole
from .fine_tuning import FineTuning
from .replaced_weights import weights_of_loader
from .schedules import Plateau
from .staged_trainer import StagedTrainer
from .stages import Stage, total_epochs
from .supervised import supervised
from .training_folder import TrainingFolder

__all__ = [
    "CaseEvaluator",
    "CaseResults",
    "FineTuning",
    "Plateau",
    "Stage",
    "StagedTrainer",
    "TrainingFolder",
    "load_weights",
    "save_whole",
    "supervised",
    "total_epochs",
    "weights_of_loader",
]
