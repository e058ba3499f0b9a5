"""Whether a profile says what its model's reference says: tasks, runs, comparison."""
