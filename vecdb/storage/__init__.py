"""Storage: one file, one ordered tree of framed records, one writer, any number of readers.

Modules, lowest first, each answering one question:
  keys     how is a key of the tree spelled?
  codec    how do values become bytes, and which values are refused?
  meta     what does the database say about itself as a whole?
  header   what can be told of a file without trusting it to the engine?
  place    where do the data file and its sidecars live, and may they be used?
  locks    who may write, and who is there?
  opening  may this file be handed to the engine?
  engine   how is LMDB asked? (the only importer of lmdb)
  translate  which error of ours does an error of LMDB's stand for?
  process  what does this process have open, and what becomes of it in a forked child?
  shared   one environment per file and process: begun, committed, renewed, forked, closed
  copies   how is a file copied while it is used, and how does it shrink?
  env      how is a database file opened, read, written and closed?
"""
