"""One image, one folder, one URL: decoding, containers, storage, bytes at an address."""
