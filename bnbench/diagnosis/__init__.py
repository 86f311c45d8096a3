"""A foreign network, or a stored run, under several statistics: what is wrong, and how to fix it.

`diagnose`: the whole of it, also as `bnbench.diagnose`. `result`: what it returns. `loader`: images
of a loader, kept. `foreign`: a network as it is looked at, and left as it was. `evidence`:
measurements, made with `probes`. `criteria`: thresholds, with their reasons. `findings`: from
measurements to findings. `nonfinite`: where NaN begins. `target`, `checkpoint`: files of the user's
own. `words`: tables for the terminal.
"""

from bnbench.diagnosis.diagnose import IMAGES, diagnose
from bnbench.diagnosis.result import Diagnosis, Finding, FindingName, LayerReading, Score

__all__ = ["IMAGES", "Diagnosis", "Finding", "FindingName", "LayerReading", "Score", "diagnose"]
