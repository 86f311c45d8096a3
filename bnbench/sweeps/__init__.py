"""Which runs are missing, and who trains them. No torch: only workers import it."""
