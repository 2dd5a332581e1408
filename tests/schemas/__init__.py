"""The records, the tables and the error tree."""
