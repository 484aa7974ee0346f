"""Where the arrays of published weight files go in our variables, one module per architecture."""
