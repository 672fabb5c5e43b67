"""What was gained and what was lost: sets of questions, the correct tokens' probability, the report on it."""
