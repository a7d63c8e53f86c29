"""Reading an answer out of a response, and comparing it with the gold."""
