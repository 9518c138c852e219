"""What is done to many cases: measured, sampled, remembered, in several processes."""
