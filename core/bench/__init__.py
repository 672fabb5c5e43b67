"""What this machine can do, and what share of it training and generation reach, each measured in a fresh process."""
