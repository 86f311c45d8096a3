"""An experiment that is to be trained."""

from __future__ import annotations

from dataclasses import dataclass

from bnbench.config.experiments import ExperimentConfig
from bnbench.config.plans import Plan
from bnbench.store import ExperimentFolder


@dataclass(frozen=True, slots=True)
class PlannedExperiment:
    """An experiment, its runs, and where they are stored."""

    experiment: ExperimentConfig
    plan: Plan
    folder: ExperimentFolder
