"""Runs that are killed, at moments nobody chose: real processes, real signals, and what an archive must look like."""
