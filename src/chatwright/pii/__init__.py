"""Personal data in text: detectors and masking, as pure functions."""
