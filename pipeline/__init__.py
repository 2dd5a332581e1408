"""From files to answers: plain functions on plain values, and thin shells round decoding, storage and the engine."""
