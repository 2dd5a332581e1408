"""What everything else is made of: frozen records, table schemas and the error tree. Imports nothing of ours."""
