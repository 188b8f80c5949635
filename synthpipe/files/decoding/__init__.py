"""The parts of decoding: opening by content, samples as stored, colours to sRGB."""
