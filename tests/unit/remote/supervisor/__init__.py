"""The judgements of supervisors, by samples."""
