"""A foreign network, or a stored run, under several statistics: what is wrong, and the fix."""

from bnbench.diagnosis.diagnose import diagnose as diagnose
from bnbench.diagnosis.result import Diagnosis as Diagnosis
from bnbench.diagnosis.result import Finding as Finding
from bnbench.diagnosis.result import LayerReading as LayerReading
from bnbench.diagnosis.result import Score as Score
