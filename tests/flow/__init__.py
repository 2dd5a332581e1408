"""Whole jobs on real files: real video, real Delta tables, real FAISS, and Ray where marked."""
