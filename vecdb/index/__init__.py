"""What makes questions fast: postings and the graph, each a cache of what is stored."""
