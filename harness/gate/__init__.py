"""Did a change make the model worse: the paired comparison, its power, its policy and its baselines."""
