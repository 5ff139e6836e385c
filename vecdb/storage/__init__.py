"""Storage: one file, one ordered tree of framed records, one writer, any number of readers.

Modules, lowest first, each answering one question:
  keys     how is a key of the tree spelled?
  codec    how do values become bytes, and which values are refused?
  meta     what does the database say about itself as a whole?
  header   what can be told of a file without trusting it to the engine?
  place    where do the data file and its sidecars live, and may they be used?
  locks    who may write, and who is there?
  env      how is the file opened, read, written, forked, closed? (the only importer of lmdb)
"""
