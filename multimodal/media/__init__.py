"""Opening pictures and recordings: bytes, paths or arrays become an upright image or a mono waveform."""
