"""The estimators behind `saccade probe`: each judges codes, or observations, without knowing what made them."""
