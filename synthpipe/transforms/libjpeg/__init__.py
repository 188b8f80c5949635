"""JPEG and back in tensor operations, with the pixels of libjpeg-turbo: to the bit, on any device, batched.

What libjpeg does with integers is done here with floating-point numbers that hold these integers exactly: float32 for
colours and chroma (below 2^24), float64 for the cosine transform (below 2^53).  No file is made.
"""

from synthpipe.transforms.libjpeg.round_trip import FACTORS, LibjpegRoundTrip

__all__ = ["FACTORS", "LibjpegRoundTrip"]
