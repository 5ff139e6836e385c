"""What do the rows of a collection have to do with each other? Behind collection/analysis.py.

    histogram.py    how are the values of a field spread?
    duplicates.py   which rows are nearly the same? components.py: who hangs together
    clusters.py     into which groups do the rows fall? kmeans.py: the arithmetic
    predict.py      which value have the neighbours?
    taking.py       which rows take part; geometry.py: their distances as matrix products

Imported when first asked for.
"""
