"""Do the estimators' defaults learn as well as scikit-learn's? See docs/defaults.md."""
