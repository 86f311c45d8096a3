"""A stranger's network, or a stored run, under several statistics: what is wrong, and the mend.

`diagnose` is the room's function, and `bnbench.diagnose`. `result`: what it returns. `loader`:
images of a loader, kept. `guest`: the network as it is looked at, without a trace. `evidence`:
measurements, made with `probes`. `criteria`: thresholds, with their reasons. `findings`: from
measurements to faults, in `phrases`. `nonfinite`: where NaN begins. `target`, `checkpoint`: files
of the user's, and how they are mended. `words`: tables for the terminal.
"""

from bnbench.diagnosis.diagnose import IMAGES, diagnose
from bnbench.diagnosis.result import Diagnosis, Fault, Finding, LayerReading, Reading

__all__ = ["IMAGES", "Diagnosis", "Fault", "Finding", "LayerReading", "Reading", "diagnose"]
