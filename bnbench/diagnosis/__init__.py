"""A foreign network, or a stored run, under several statistics: what is wrong, and the fix."""

from bnbench.diagnosis.diagnose import diagnose
from bnbench.diagnosis.result import Diagnosis, Finding, LayerReading, Score
