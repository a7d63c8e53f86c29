"""One module per benchmark, each a `TASK` and the functions that it cannot share."""
