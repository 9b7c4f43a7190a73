"""What several test modules build on: slides, cohorts and outputs of runs, made for tests."""
