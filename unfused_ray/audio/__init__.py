"""Audio processing in NumPy and torch: decoding, crops, log-mels, augmentation, stateless randomness. No Ray."""
