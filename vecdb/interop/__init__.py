"""Other libraries' indexes as collections, and back; a module for each library."""
