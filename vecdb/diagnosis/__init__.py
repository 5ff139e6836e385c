"""Is it the data or the model? `vecdb.diagnose`; diagnose.py says which file looks at what."""

from vecdb.diagnosis.diagnose import diagnose
from vecdb.diagnosis.finding import Finding
from vecdb.diagnosis.report import Diagnosis

__all__ = ["Diagnosis", "Finding", "diagnose"]
