"""`footage serve`: the HTTP API and the page."""
