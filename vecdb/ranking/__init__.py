"""How is a query object answered? A ranker for each kind of query, at one commit of one collection."""
