"""Round trips through lossy codecs, in memory: ``(h, w, 3)`` uint8 in, the same size out."""
