"""What does a measurement look like on paper? Reports as pages, tables and plots, without a dependency.

`base.py` what every report can do, `page.py` sections as an HTML page, `plots.py` pictures as SVG, on
`drawing.py` (what they are made of), `scales.py` (axes) and `cells.py` (values as text).
"""

from vecdb.reports.base import Report
from vecdb.reports.drawing import Plot
from vecdb.reports.page import Code, Prose, Section, Table, page

__all__ = ["Code", "Plot", "Prose", "Report", "Section", "Table", "page"]
