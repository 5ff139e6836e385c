"""Encoders: texts in, vectors out. `get` finds one by name, `function` makes one of a callable, `http` one
of a service, `bert`, `onnx`, `model2vec` and `sentence_transformers` of a model in a folder;
`cross_encoder` ranks hits anew.

base.py holds the protocol and the card, registry.py the names; then one file a family. Nothing
but numpy is imported until an encoder that needs more is asked for.

>>> import vecdb
>>> vecdb.encoders.get("hashing").encode_queries(["how are lists sorted"]).shape
(1, 512)
"""

from vecdb.encoders.base import Card, Encoder, Tokenized, card_of
from vecdb.encoders.bert import bert
from vecdb.encoders.cross import CrossEncoder, cross_encoder
from vecdb.encoders.function import function
from vecdb.encoders.http import HttpEncoder, http
from vecdb.encoders.model2vec import model2vec
from vecdb.encoders.onnx import onnx
from vecdb.encoders.registry import available, get, register
from vecdb.encoders.sentence_transformers import sentence_transformers

__all__ = [
    "Card",
    "CrossEncoder",
    "Encoder",
    "HttpEncoder",
    "Tokenized",
    "available",
    "bert",
    "card_of",
    "cross_encoder",
    "function",
    "get",
    "http",
    "model2vec",
    "onnx",
    "register",
    "sentence_transformers",
]
