"""Files of any kind → records. `find_units` says what there is to read, `read_unit` reads one unit in flat memory.

Nothing is lost silently: whatever is not read comes out as a `Skipped` with a reason. Names inside archives are labels only,
nothing is ever written under them.
"""

from chatwright.text.readers.find import Input, find_units
from chatwright.text.readers.read import read_unit
from chatwright.text.readers.unit import Limits, Record, Skipped, Unit

__all__ = ["Input", "Limits", "Record", "Skipped", "Unit", "find_units", "read_unit"]
