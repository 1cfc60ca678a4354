"""From waveform to augmented log-mel views, in torch; no Ray."""
