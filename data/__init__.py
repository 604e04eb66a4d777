"""Data sets to train encoders on, and to judge them by."""
