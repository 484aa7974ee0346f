"""Audio files to stems, pitch, notes and pictures."""
