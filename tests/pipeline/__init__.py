"""The pipeline part by part: real video files, real tables, real indexes, and Ray where marked."""
